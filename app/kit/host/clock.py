"""The kit's time of day: that of the machine, unless the machine's clock has just jumped.

A clock may be wrong for a while (before NTP has spoken, or when somebody mistypes a date), and what was deleted or
sent by it is gone. So the time since the start is counted as well, by a clock that nobody can set.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

STEP_S = 60.0
"""A larger difference between the two clocks is a jump. NTP and leap seconds make smaller ones."""
AGREED_S = 0.001
"""Two clocks that differ by less since they were last compared need not be compared anew."""
FAR_S = 6 * 3600.0
"""A jump this far is not followed at all until it is believed; a smaller one is (a machine that was suspended)."""
LONG_OFF_S = 24 * 3600.0
"""A site that starts after a longer rest than this may as well have a clock that is ahead."""
BELIEVED_AFTER_S = 15 * 60.0
"""A time that has stood for so long is believed."""

# Where the system has a clock that also counts while the machine sleeps, a sleep is no jump.
_SLEEPLESS = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))

_counted = time.monotonic if _SLEEPLESS is None else partial(time.clock_gettime, _SLEEPLESS)
"""Returns seconds that only ever grow, as fast as time passes."""


def _of_the_machine() -> float:
    return time.time()


class _Pace(NamedTuple):
    """A moment (unix seconds) and what was counted then: what time it is now follows from the two."""

    moment: float
    counted: float

    def at(self, counted: float) -> float:
        return self.moment + counted - self.counted


class _Known(NamedTuple):
    """What a clock knows, replaced as a whole, so that threads need no lock: the time that is believed, the one
    that is followed, and since when there is another."""

    settled: _Pace
    followed: _Pace
    jumped: _Pace | None = None


class Clock:
    """Tells the time twice: as jobs run by it, and as things may be deleted by it for good."""

    def __init__(
        self, wall: Callable[[], float] | None = None, counted: Callable[[], float] = _counted
    ) -> None:
        self._wall = wall or _of_the_machine
        self._counted = counted
        here = _Pace(self._wall(), counted())
        self._known = _Known(here, here)

    def __call__(self) -> float:
        """Return the time to go by, in unix seconds: a far jump is not followed until it is believed."""
        return self._tell()[0]

    def settled(self) -> float:
        """Return the time, in unix seconds, by which a thing is old enough to go: no jump is followed at first."""
        return self._tell()[1]

    def utc(self) -> dt.datetime:
        """Return the time to go by."""
        return dt.datetime.fromtimestamp(self(), dt.UTC)

    def settled_utc(self) -> dt.datetime:
        """Return the time by which a thing is old enough to go."""
        return dt.datetime.fromtimestamp(self.settled(), dt.UTC)

    def heed(self, newest: float | None) -> None:
        """Compare the clock with the newest moment in the database, which was the present once."""
        wall, count = self._tell()[2], self._counted()
        if newest is None or -STEP_S <= wall - newest <= LONG_OFF_S or self._known.jumped:
            return
        settled, here = _Pace(newest, count), _Pace(wall, count)
        self._known = _Known(settled, settled if newest - wall > FAR_S else here, here)

    def doubt(self) -> str | None:
        """Say in a sentence that the clock jumped and is not believed yet; None when all is well."""
        now, _, wall = self._tell()
        settled, _, jumped = self._known
        if jumped is None:
            return None
        count = self._counted()
        left_s, ahead_s = BELIEVED_AFTER_S - (count - jumped.counted), wall - settled.at(count)
        way = "ahead of" if ahead_s > 0 else "behind"
        jobs = "Jobs run by" if now == wall else "Jobs go on by the time before, and not by"
        return (
            f"The machine's clock is {_duration(abs(ahead_s))} {way} the time that this site has counted. "
            f"{jobs} it; nothing is deleted and nothing expires by it until it has stood for "
            f"{max(1, round(left_s / 60))} more minutes."
        )

    def _tell(self) -> tuple[float, float, float]:
        """Return the time to go by, the settled time and the machine's."""
        wall, count = self._wall(), self._counted()
        settled, followed, jumped = self._known
        if followed is settled and jumped is None and abs(wall - settled.at(count)) < AGREED_S:
            return wall, wall, wall
        here = _Pace(wall, count)
        is_new_jump = jumped is None or abs(wall - jumped.at(count)) > STEP_S
        if abs(wall - settled.at(count)) <= STEP_S or (
            not is_new_jump and jumped is not None and count - jumped.counted >= BELIEVED_AFTER_S
        ):
            settled, followed, jumped = here, here, None
        elif is_new_jump:
            jumped = here
        if abs(wall - followed.at(count)) <= FAR_S:
            followed = here
        self._known = _Known(settled, followed, jumped)
        # Whoever compares the age of a thing with a limit must not see it older than either clock says.
        return followed.at(count), min(settled.at(count), wall), wall


def _duration(seconds: float) -> str:
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.0f} hours" if seconds < 2 * 86400 else f"{seconds / 86400:.0f} days"


clock = Clock()
"""The clock of this process."""
