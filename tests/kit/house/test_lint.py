"""The linters' word over the whole tree; they find their settings in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT_DIR = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("arguments", [("ruff", "check"), ("ruff", "format", "--diff")], ids=" ".join)
def test_ruff_has_nothing_to_say(arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", *arguments, "--quiet", "."]
    answer = subprocess.run(command, cwd=PROJECT_DIR, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.slow
def test_mypy_has_nothing_to_say_of_main_app_and_tasks() -> None:
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "main.py", "app", "tasks"]
    answer = subprocess.run(command, cwd=PROJECT_DIR, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
