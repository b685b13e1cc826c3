"""Tests in a real Chromium, against the real site. One browser for all of them, a fresh profile for each page."""
