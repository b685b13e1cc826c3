"""Every module of tasks/ is found by itself, in folders too; what cannot be found or imported is named."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tasks
from app.kit import yours

TASK = "from tasks import task\n\n\n@task()\ndef {0}():\n    return '{0}'\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of tasks, with nothing in it."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").write_text("1 / 0")
    monkeypatch.setattr(tasks, "__path__", [str(tmp_path / "tasks")])
    before, known = set(sys.modules), dict(tasks.huey._registry._registry)
    yield tmp_path / "tasks"
    tasks.huey._registry._registry = known
    for name in set(sys.modules) - before:
        if name.startswith("tasks."):
            del sys.modules[name]
            vars(tasks).pop(name.split(".")[1], None)


def write(folder: Path, *names: str, text: str | None = None) -> None:
    for name in names:
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TASK.format(path.stem) if text is None else text)


def test_modules_are_found_in_folders_too_with_and_without_an_init(folder: Path) -> None:
    write(
        folder,
        "found_a",
        "found_b/daily",
        "found_b/deep/yearly",
        "found_c/weekly",
        ".hidden/x",
        "__pycache__/y",
    )
    write(folder, "found_c/__init__", text="")
    yours.load_tasks(tasks)
    assert {name for name in tasks.huey._registry._registry if "found_" in name} == {
        "tasks.found_a.found_a",
        "tasks.found_b.daily.daily",
        "tasks.found_b.deep.yearly.yearly",
        "tasks.found_c.weekly.weekly",
    }


@pytest.mark.parametrize("names", [("found_d", "found_d/daily"), ("found_d", "found_d/__init__")])
def test_a_module_and_a_folder_of_one_name_are_refused(folder: Path, names: tuple[str, ...]) -> None:
    write(folder, *names)
    with pytest.raises(ImportError, match=r"found_d\.py and the folder found_d"):
        yours.load_tasks(tasks)


def test_what_is_left_of_a_folder_is_no_folder(folder: Path) -> None:
    write(folder, "found_e")
    (folder / "found_e" / "__pycache__").mkdir(parents=True)
    yours.load_tasks(tasks)


@pytest.mark.parametrize("name", ["found_f.v2", "found_g.v2/daily"])
def test_a_name_with_a_dot_is_refused(folder: Path, name: str) -> None:
    write(folder, name)
    with pytest.raises(ImportError, match="dot"):
        yours.load_tasks(tasks)


def test_a_module_that_cannot_be_imported_is_named(folder: Path) -> None:
    write(folder, "found_h/daily", text="import no_such_thing")
    with pytest.raises(ModuleNotFoundError) as raised:
        yours.load_tasks(tasks)
    assert str(Path("tasks/found_h/daily.py")) in raised.value.__notes__[0]
