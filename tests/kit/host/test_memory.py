"""What the site's process does not load before it needs it, and that a new file is made without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.small_project import PROJECT_DIR

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn does not run on Windows")

CHILD = """
import runpy, sys
make_new_file = runpy.run_path("gunicorn.conf.py")["_make_new_file"]
import main
database = main.app.extensions["database"]
make_new_file(database)
print("the file is there:", database.path.exists())
database.open()
print("loaded:", *[name for name in ("sqlite_utils", "css_inline", "prometheus_client") if name in sys.modules])
print("books:", database.read_one("SELECT COUNT(*) > 0 FROM books")[0])
"""


def start(data_dir: Path) -> subprocess.CompletedProcess[str]:
    """Do what gunicorn's worker does, but for serving."""
    environ = {**os.environ, "DATA_DIR": str(data_dir), "SECRET_KEY": "k" * 32}
    command = [sys.executable, "-c", CHILD]
    return subprocess.run(
        command, cwd=PROJECT_DIR, env=environ, capture_output=True, text=True, check=False, timeout=60
    )


def test_a_start_loads_nothing_that_only_a_migration_a_mail_or_a_scrape_needs(tmp_path: Path) -> None:
    for _ in range(2):  # with a new file, and with that one
        ran = start(tmp_path / "data")
        said = ["the file is there: True", "loaded:", "books: 1"]
        assert (ran.stdout.splitlines(), ran.stderr) == (said, "")


def test_a_new_file_that_cannot_be_made_ends_the_start_with_one_report(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    ran = start(tmp_path / "taken")
    assert ran.stdout.splitlines() == ["the file is there: False"]
    assert ran.stderr.count("postroom.db cannot be used") == 1
