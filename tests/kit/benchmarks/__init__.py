"""Measurements: they print medians and ratios, and assert only that what was measured really happened."""
