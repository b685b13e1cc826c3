"""Tests that run the real server in a process of its own, and kill it."""
