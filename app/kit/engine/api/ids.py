"""The ids of jobs: unguessable, and in the order of time."""

from __future__ import annotations

import os
import time


def new_id() -> str:
    """Make a UUID of version 7: 48 bits of milliseconds, 74 of chance.

    Jobs that came together lie together in the table's index of ids, so that with a million of them an insert
    still touches pages that are in memory.
    Source: RFC 9562, section 5.7; the standard library has it from Python 3.14 on.
    """
    moment_ms, chance = time.time_ns() // 1_000_000, int.from_bytes(os.urandom(10))
    low, high = chance & (2**62 - 1), chance >> 62 & 0xFFF
    digits = f"{moment_ms << 80 | 7 << 76 | high << 64 | 2 << 62 | low:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
