"""A clock that stands still, for tests in which the minute matters."""

from __future__ import annotations

from tests.kit.engine_rig import Rig

NOW = 1_800_000_000.0
"""A whole minute, and a whole hour."""


class StillClock:
    """The time of day, which only moves when a test moves it."""

    offset_s = 0.0

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Move the clock; whoever sleeps by it has to be woken."""
        self.now += seconds


def stop_the_clock(rig: Rig, now: float = NOW) -> StillClock:
    """Give a rig a clock that stands still."""
    clock = StillClock(now)
    rig.clock = rig.huey.now = clock  # type: ignore[assignment]
    return clock
