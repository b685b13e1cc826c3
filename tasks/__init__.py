"""Your tasks: every module in this folder is found by itself, in folders too. example.py is there to be copied."""

from app.kit.engine.wiring import batch_task, huey, periodic_task, progress, task
from app.kit.mail.sending import send_email

__all__ = ["batch_task", "huey", "periodic_task", "progress", "send_email", "task"]
