"""The kit's task queue: `@task` makes a function a job, `load()` finds every module of tasks."""

from __future__ import annotations

import importlib
from pathlib import Path

from tasks.engine.durable import DurableHuey

huey = DurableHuey("postroom", store_intermediate_errors=False)
task = huey.task
periodic_task = huey.periodic_task
batch_task = huey.batch_task
progress = huey.progress


def load() -> None:
    """Import every module of this folder and of those inside it, so that no task is ever unknown to the worker.

    Raises: ImportError for a module that Python cannot find by its name; what a module raises, with its path.
    """
    folder = Path(__path__[0])
    found = {}
    for path in sorted(folder.rglob("*.py")):
        *folders, name = path.relative_to(folder).with_suffix("").parts
        parts = folders if name == "__init__" else [*folders, name]
        if parts and parts[0] != "engine" and not any(part.startswith((".", "__")) for part in parts):
            _refuse_a_lost_one(path, folder.parent)
            found[path] = ".".join((__name__, *parts))
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
