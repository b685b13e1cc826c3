"""A signature used more than once is as many jobs, as in Huey; an id that the caller names is one (P1, P2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from huey.api import chord, group

from app.kit.errors import ConflictError, InvalidInputError
from tests.kit.engine_rig import Rig


@pytest.fixture
def ran(rig: Rig) -> list[Any]:
    """What the bodies of `note` were given, in order."""
    return []


@pytest.fixture
def note(rig: Rig, ran: list[Any]) -> Any:
    """A task that notes its arguments."""
    return rig.huey.task(name="note")(lambda *values: ran.append(values))


def repeat(rig: Rig, note: Any) -> None:
    one = note.s("x")
    for _ in range(3):
        rig.huey.enqueue(one)


def repeat_in_bulk(rig: Rig, note: Any) -> None:
    with rig.huey.bulk():
        repeat(rig, note)


def gather(rig: Rig, note: Any) -> None:
    rig.huey.enqueue(group([note.s("x")] * 3))


def follow_up(rig: Rig, note: Any) -> None:
    then, give = note.s("x"), rig.huey.task(name="give")(lambda: None)
    rig.huey.enqueue(group([give.s().then(then) for _ in range(2)]))
    rig.huey.enqueue(give.s().then(then))


def follow_failures(rig: Rig, note: Any) -> None:
    fail = rig.huey.task(name="fail")(lambda: {}["x"])
    rig.huey.enqueue(group([fail.s() for _ in range(3)]).error(note.s("x")))


def follow_chords(rig: Rig, note: Any) -> None:
    callback, give = note.s("x"), rig.huey.task(name="give")(lambda: None)
    for _ in range(3):
        rig.huey.enqueue(chord([give.s()], callback))


@pytest.mark.parametrize("use", [repeat, repeat_in_bulk, gather, follow_up, follow_failures, follow_chords])
@pytest.mark.parametrize("immediate", [False, True])
def test_each_use_of_a_signature_is_a_job(
    rig: Rig, note: Any, ran: list[Any], use: Callable[[Rig, Any], None], immediate: bool
) -> None:
    rig.huey.immediate = immediate
    use(rig, note)
    if not immediate:
        rig.run_all(workers=1)
    assert [values[0] for values in ran] == ["x"] * 3


def test_the_results_of_one_signature_are_apart(rig: Rig) -> None:
    numbers = iter(range(9))
    count = rig.huey.task(name="count")(lambda: next(numbers))
    signature = count.s()
    results = [rig.huey.enqueue(signature) for _ in range(3)]
    assert results[0].id == signature.id
    rig.run_all(workers=1)
    assert [result.get() for result in results] == [0, 1, 2]


def test_a_chord_of_one_signature_fires_and_leaves_the_signature_as_it_was(rig: Rig, give: Any) -> None:
    total = rig.huey.task(name="total")(sum)
    signature = give.s(2)
    result = rig.huey.enqueue(chord([signature] * 3, total.s()))
    alone = rig.huey.enqueue(signature)
    rig.run_all()
    assert (result.get(), signature.chord_config, alone.get()) == (6, None, 2)


def test_chords_in_a_chord_share_nothing_either(rig: Rig, give: Any) -> None:
    total = rig.huey.task(name="total")(sum)
    inner = chord([give.s(1), give.s(2)], total.s())
    result = rig.huey.enqueue(chord([inner, inner, give.s(4).then(give)], total.s()))
    rig.run_all()
    assert result.get() == 10


def test_one_signature_twice_in_a_pipeline_is_refused(rig: Rig, give: Any, note: Any) -> None:
    step = note.s()
    with pytest.raises(InvalidInputError, match="note"):
        rig.huey.enqueue(give.s(1).then(step).then(step))
    assert rig.states() == {}


def test_a_job_that_enqueues_its_own_id_fails_with_the_way_out(rig: Rig) -> None:
    again = rig.huey.task(name="again", context=True)(lambda task: again.schedule(delay=60, id=task.id))
    result = again(id="nightly")
    rig.run_all()
    assert "ConflictError" in rig.row(result.id)["error"]
    assert "RetryTask" in rig.row(result.id)["error"]


@pytest.mark.parametrize("leads", [False, True])
def test_a_member_of_a_chord_that_is_a_live_job_already_is_refused(rig: Rig, give: Any, leads: bool) -> None:
    give.schedule((1,), delay=3600, id="report")
    member = give.s(1, id="report")
    with pytest.raises(ConflictError, match="report"):
        rig.huey.enqueue(chord([give.s(2), member.then(give) if leads else member], give.s(id="sum")))
    assert rig.states() == {"scheduled": 1}


def test_one_id_for_two_members_of_a_chord_is_refused(rig: Rig, give: Any) -> None:
    with pytest.raises(ConflictError, match="same"):
        rig.huey.enqueue(chord([give.s(1, id="same"), give.s(2, id="same")], give.s()))
    assert rig.states() == {}


def test_a_member_that_ended_before_may_be_used_again(rig: Rig, give: Any) -> None:
    for _ in range(2):
        result = rig.huey.enqueue(chord([give.s(1, id="same"), give.s(2)], give.s()))
        rig.run_all()
        assert result.get() == [1, 2]


# Put off


def test_a_rescheduled_member_keeps_its_place_in_the_chord(rig: Rig, give: Any) -> None:
    result = rig.huey.enqueue(chord([give.s(1), give.s(2, delay=60), give.s(3)], give.s()))
    moved = list(result.results)[1].reschedule(delay=120)
    rig.run_all()
    rig.clock.advance(61)
    rig.run_all()
    assert result.get() is None
    rig.clock.advance(60)
    rig.run_all()
    assert (result.get(), moved.get()) == ([1, 2, 3], 2)


def test_a_rescheduled_pipeline_keeps_its_steps(rig: Rig, give: Any) -> None:
    first, last = rig.huey.enqueue(give.s(1, delay=60).then(give))
    first.reschedule(delay=0)
    rig.clock.advance(61)
    rig.run_all()
    assert last.get() == 1


def test_a_member_that_is_revoked_for_good_is_left_out_as_before(rig: Rig, give: Any) -> None:
    result = rig.huey.enqueue(chord([give.s(1), give.s(2)], give.s()))
    list(result.results)[1].revoke()
    rig.run_all()
    assert result.get()[0] == 1
    assert repr(result.get()[1]) == "SKIPPED"
