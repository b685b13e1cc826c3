"""The kit's one queue, and what `tasks` hands on of it."""

from __future__ import annotations

from app.kit.engine.api.durable import DurableHuey

huey = DurableHuey("postroom", store_intermediate_errors=False)
task = huey.task
periodic_task = huey.periodic_task
batch_task = huey.batch_task
progress = huey.progress
