"""A body or a hook that forks: the child ends where it would come back into the worker (P2)."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.kit.engine_rig import PATIENCE_S, Rig

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks nothing"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]


def status_of(pid: int) -> int:
    """Return the exit status of a child; one that does not end is killed, which gives another."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def returns() -> str:
    return "the child"


def fails() -> None:
    raise ValueError("in the child")


def exits() -> None:
    sys.exit(3)


@pytest.mark.parametrize(("leave", "status"), [(returns, 0), (fails, 1), (exits, 3)])
@pytest.mark.parametrize("kind", ["task", "batch"])
def test_a_child_that_leaves_its_body_ends_and_the_job_is_its_parents(
    rig: Rig, kind: str, leave: Callable[[], Any], status: int
) -> None:
    statuses: list[int] = []

    def body(*_: Any) -> str:
        child = os.fork()
        if child == 0:
            return leave()  # type: ignore[no-any-return]
        statuses.append(status_of(child))
        return "the parent"

    if kind == "task":
        results = [rig.huey.task(name="forks")(body)()]
        rig.run_all(workers=1)
        assert results[0].get() == "the parent"
    else:
        rig.huey.batch_task(every_s=60, name="forks")(body)(1)
        rig.clock.advance(60)
        rig.run_all(workers=1)
    assert (statuses, rig.states()) == ([status], {"done": 1})


@pytest.mark.parametrize("hook", ["on_startup", "pre_execute", "post_execute", "signal"])
def test_a_child_that_leaves_a_hook_ends(rig: Rig, hook: str) -> None:
    statuses: list[int] = []

    def forks(*_: Any) -> None:
        if not statuses and (child := os.fork()):
            statuses.append(status_of(child))

    register = rig.huey.signal if hook == "signal" else getattr(rig.huey, hook)
    register("executing" if hook == "signal" else "forks")(forks)
    result = rig.huey.task(name="give")(lambda: 1)()
    rig.run_all(workers=1)
    assert (statuses, result.get()) == ([0], 1)
