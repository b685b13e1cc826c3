"""Loaded in CI by `python3 main.py test --all`: there a skipped test counts as failed.

CI has every part that the tests need, so a skip would be a proof that quietly stopped. Tests for another
system are the exception; their reason starts with "needs Windows" or "needs macOS".
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

ELSEWHERE = ("needs Windows", "needs macOS")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that skips itself."""
    return _without_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail a module that skips itself."""
    return _without_skip((yield))


def _without_skip(report: Any) -> Any:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(ELSEWHERE):
            report.outcome = "failed"
            report.longrepr = f"skipped, which CI does not allow: {reason}"
    return report
