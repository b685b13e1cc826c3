"""What members leave for their chord: within bounds, and no longer than it is needed (P4)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huey.api import chord

from app.kit.engine.jobs import upkeep
from app.kit.engine.jobs.job import ChordPart
from app.kit.errors import JobTooLargeError
from tests.kit.engine_rig import Rig, rig_in
from tests.kit.queue_rig import NOW, Queue

PARTS = "SELECT chord, position, value FROM postroom_chord_parts ORDER BY position"


def test_the_callback_hears_of_many_long_errors(tmp_path: Path) -> None:
    def fail(n: int) -> None:
        raise ValueError("\x01é" * 10_000)

    with rig_in(tmp_path, max_job_bytes=65_536) as rig:
        fails = rig.huey.task(name="fails")(fail)
        count = rig.huey.task(name="count")(
            lambda values: [len(str(v.metadata["error"])) > 50 for v in values]
        )
        result = rig.huey.enqueue(chord([fails.s(n) for n in range(40)], count.s()))
        rig.run_all()
        assert result.get() == [True] * 40


def test_the_values_go_as_the_chord_fires_and_a_member_that_runs_once_more_leaves_nothing(
    queue: Queue,
) -> None:
    parts = [ChordPart("c", 2, position, b"%d" % position) for position in range(2)]
    assert queue.add_part(parts[1]) is None
    assert queue.add_part(parts[1]) is None
    assert queue.add_part(parts[0]) == [b"0", b"1"]
    assert queue.add_part(parts[1]) is None
    assert queue.all(PARTS) == []


def test_more_than_a_callback_can_take_is_not_kept(queue: Queue) -> None:
    for position in range(4):
        assert queue.add_part(ChordPart("c", 5, position, b"x" * 700)) is None
    assert [len(value) for *_, value in queue.all(PARTS)] == [700, 700, 0, 0]
    with pytest.raises(JobTooLargeError, match="5 members"):
        queue.add_part(ChordPart("c", 5, 4, b"x"))


def test_a_callback_whose_values_are_too_many_fails_in_view(tmp_path: Path) -> None:
    with rig_in(tmp_path, max_job_bytes=10_000) as rig:
        give: Any = rig.huey.task(name="give")(lambda *values: values[0])
        result = rig.huey.enqueue(chord([give.s("x" * 4000) for _ in range(3)], give.s(id="callback")))
        rig.run_all()
        assert rig.row(result.callback.id)["error"].startswith("JobTooLargeError")
        assert rig.rows(PARTS) == []


def test_of_chords_that_have_fired_as_many_rows_are_kept_as_of_jobs_that_are_done(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "KEEP_DONE_ROWS", 2)
    for number in range(4):
        queue.add_part(ChordPart(f"c{number}", 1, 0, b"1"))
    queue.add_part(ChordPart("waits", 2, 0, b"1"))
    for later_s, kept in ((0, 5), (upkeep.KEEP_DONE_S + 1, 3)):
        queue.database.write(lambda c, at=NOW + later_s: upkeep.prune(c, upkeep.Ages(), at))
        assert queue.all("SELECT COUNT(*) FROM postroom_chords") == [(kept,)]


def test_the_numbers_of_parts_hold_where_a_member_is_tried_again(rig: Rig, give: Any) -> None:
    fickle = iter([ValueError("no"), None])

    def fail_once() -> int:
        if error := next(fickle):
            raise error
        return 2

    result = rig.huey.enqueue(chord([give.s(1), rig.huey.task(name="f", retries=1)(fail_once).s()], give.s()))
    rig.run_all()
    assert result.get() == [1, 2]
