"""The least site that can enqueue, the same for all rivals; BENCHMARK_CONTESTANT names the module that enqueues."""

from __future__ import annotations

import importlib
import os

from flask import Flask

app = Flask(__name__)
contestant = importlib.import_module(f"tests.kit.benchmarks.contestants.{os.environ['BENCHMARK_CONTESTANT']}")


@app.get("/up")
def up() -> str:
    """Say that the site answers."""
    return "up"


@app.post("/api/enqueue/<int(signed=True):n>")
def enqueue(n: int) -> tuple[str, int]:
    """Enqueue job n."""
    contestant.enqueue(n)
    return "accepted", 202
