"""Asking a site that may be starting anew at the moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from http.client import HTTPException
from typing import Any

from tests.kit.site_process import Site

LOOK_S = 0.02


def ask_until(site: Site, path: str, is_so: Callable[[int, Any], bool], within_s: float) -> Any:
    """GET a path, as the operator, until its status and body are as wanted; return the body."""
    deadline, answer = time.monotonic() + within_s, (0, None)
    while time.monotonic() < deadline:
        try:
            answer = site.get(path, timeout_s=5, as_operator=True)
            if is_so(*answer):
                return answer[1]
        except (OSError, HTTPException):
            pass  # its process died, another starts
        time.sleep(LOOK_S)
    raise AssertionError(f"{path} answered {answer} after {within_s:g} s:\n" + "".join(site.log[-50:]))


def finished(status: int, queue: Any) -> bool:
    """Say whether no job waits or runs."""
    return status == 200 and not sum(queue["counts"][state] for state in ("scheduled", "ready", "running"))
