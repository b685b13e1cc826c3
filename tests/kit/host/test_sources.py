"""The reload in development: every edit of the project's own files is seen, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.kit.host.sources import Sources

SOON_NS = 5_000_000_000


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project."""
    for name in ("main.py", "app/pages/home.py", "app/templates/home.html", "tasks/post.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("before", encoding="utf-8")
    return tmp_path


def edit(path: Path, after_ns: int) -> None:
    """Write a file, a while after a moment."""
    path.write_text("after", encoding="utf-8")
    os.utime(path, ns=(after_ns + SOON_NS, after_ns + SOON_NS))


@pytest.mark.parametrize("name", ["main.py", "app/pages/home.py", "app/templates/home.html", "tasks/post.py"])
def test_an_edit_is_seen(project: Path, name: str) -> None:
    sources = Sources(project)
    before = sources.edited_at_ns()
    assert sources.edited_at_ns() == before
    edit(project / name, before)
    assert sources.edited_at_ns() == before + SOON_NS


def test_a_new_file_is_seen_and_so_are_later_edits_of_it(project: Path) -> None:
    sources = Sources(project)
    before = sources.edited_at_ns()
    new = project / "app" / "pages" / "news.py"
    for _ in range(2):
        edit(new, before)
        before += SOON_NS
        assert sources.edited_at_ns() == before


def test_a_file_in_a_new_folder_is_seen(project: Path) -> None:
    sources = Sources(project)
    before = sources.edited_at_ns()
    (project / "app" / "shop").mkdir()
    edit(project / "app" / "shop" / "cart.py", before)
    assert sources.edited_at_ns() == before + SOON_NS


def test_what_disappears_stops_nothing(project: Path) -> None:
    sources = Sources(project)
    sources.edited_at_ns()
    (project / "main.py").unlink()
    (project / "tasks" / "post.py").unlink()
    (project / "tasks").rmdir()
    assert sources.edited_at_ns() > 0


@pytest.mark.parametrize(
    "name", ["app/notes.md", "app/__pycache__/home.py", "data/production/postroom.db", "tests/test_x.py"]
)
def test_other_files_are_not_sources(project: Path, name: str) -> None:
    sources = Sources(project)
    before = sources.edited_at_ns()
    (project / name).parent.mkdir(parents=True, exist_ok=True)
    edit(project / name, before)
    assert sources.edited_at_ns() == before
