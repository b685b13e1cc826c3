"""The kit's task queue: `@task` makes a function a job, `load()` finds every module of tasks."""

from __future__ import annotations

import importlib
import pkgutil

from tasks.engine.durable import DurableHuey

huey = DurableHuey("postroom", store_intermediate_errors=False)
task = huey.task
periodic_task = huey.periodic_task
batch_task = huey.batch_task
progress = huey.progress


def load() -> None:
    """Import every module of this package, so that no task is ever unknown to the worker."""
    for module in pkgutil.iter_modules(__path__):
        if module.name != "engine":
            importlib.import_module(f"{__name__}.{module.name}")
