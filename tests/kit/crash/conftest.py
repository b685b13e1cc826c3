"""Fixtures of the crash tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.site_process import SITE_UNDER_TEST, Site


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """The file in which the bodies of the site under test note their start and end."""
    path = tmp_path / "notes.txt"
    path.touch()
    return path


@pytest.fixture
def site(tmp_path: Path, notes: Path) -> Iterator[Site]:
    """The site under test, started; it is killed at the end."""
    with Site(tmp_path / "data", SITE_UNDER_TEST, NOTES=str(notes)) as site:
        yield site
