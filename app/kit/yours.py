"""Finds what is yours by itself: tasks, pages and tables. A new one is a new file, and no edit elsewhere."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from app.kit.database.setup import Migrations

KIT = "kit"


def find_pages(app: ModuleType) -> list[ModuleType]:
    """Import every module of app/pages/ and every app/<folder>/pages.py; return those that have a `bp`."""
    folder = Path(app.__path__[0])
    names = [f"pages.{path.stem}" for path in sorted((folder / "pages").glob("[!_]*.py"))]
    names += [f"{path.parent.name}.pages" for path in _in_folders(folder, "pages.py")]
    return [module for module in _import(app, names) if hasattr(module, "bp")]


def find_migrations(app: ModuleType) -> list[Migrations]:
    """Import every app/<folder>/tables.py and return its `migrations`."""
    folder = Path(app.__path__[0])
    names = [f"{path.parent.name}.tables" for path in _in_folders(folder, "tables.py")]
    return [module.migrations for module in _import(app, names)]


def _in_folders(folder: Path, name: str) -> Iterator[Path]:
    return (path for path in sorted(folder.glob(f"*/{name}")) if path.parent.name != KIT)


def _import(package: ModuleType, names: list[str]) -> Iterator[ModuleType]:
    return (importlib.import_module(f"{package.__name__}.{name}") for name in names)


def load_tasks(tasks: ModuleType) -> None:
    """Import every module of the folder of tasks and of those inside it, so that the worker knows every task.

    Raises: ImportError for a module that Python cannot find by its name; what a module raises, with its path.
    """
    folder = Path(tasks.__path__[0])
    found = {}
    for path in sorted(folder.rglob("*.py")):
        *folders, name = path.relative_to(folder).with_suffix("").parts
        parts = folders if name == "__init__" else [*folders, name]
        if parts and not any(part.startswith((".", "__")) for part in parts):
            _refuse_a_lost_one(path, folder.parent)
            found[path] = ".".join((tasks.__name__, *parts))
    for path, module in found.items():
        try:
            importlib.import_module(module)
        except Exception as error:
            error.add_note(f"{path.relative_to(folder.parent)} raised it when the tasks were loaded.")
            raise


def _refuse_a_lost_one(path: Path, project: Path) -> None:
    shown = path.relative_to(project)
    if "." in path.stem or any("." in part for part in shown.parent.parts):
        raise ImportError(f"{shown} cannot be imported, for there is a dot in its name: give it another.")
    twin = path.with_suffix("")
    if any(twin.rglob("*.py")):
        raise ImportError(
            f"{shown} and the folder {twin.name} beside it have one name, so only one is found: rename one."
        )
