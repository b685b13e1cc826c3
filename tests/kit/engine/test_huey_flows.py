"""Huey's flows on the durable queue: pipelines, error handlers, groups, chords, map, bulk."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from huey import chord, group
from huey.exceptions import TaskException
from huey.utils import SKIPPED, Error

from app.kit.engine.codec import RemoteError
from app.kit.errors import JobTooLargeError, PayloadError, QueueFullError
from tests.kit.engine_rig import Rig, rig_in


@pytest.fixture
def add(rig: Rig) -> Any:
    """A task that adds."""
    return rig.huey.task(name="add")(lambda *numbers: sum(numbers))


@pytest.fixture
def gather(rig: Rig) -> Any:
    """A task that returns the list it is given, with exceptions and skips by name."""
    return rig.huey.task(name="gather")(lambda values: [named(value) for value in values])


@pytest.fixture
def broken(rig: Rig) -> Any:
    """A task that always fails."""

    def broken(*anything: object) -> None:
        raise ValueError("broken")

    return rig.huey.task()(broken)


def named(value: object) -> object:
    if isinstance(value, Error):
        return str(value.metadata["error"])
    return "skipped" if value is SKIPPED else value


# Pipelines


def test_a_pipeline_hands_each_value_on(rig: Rig, add: Any) -> None:
    results = rig.huey.enqueue(add.s(1, 2).then(add, 10).then(add, 100))
    rig.run_all()
    assert results.get() == [3, 13, 113]


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (5, ((9, 5), {})),
        ((5, 6), ((9, 5, 6), {})),
        ({"k": 5}, ((9,), {"k": 5})),
        (None, ((9,), {})),
        ([5], ((9, [5]), {})),
    ],
    ids=str,
)
def test_a_pipeline_hands_a_tuple_on_as_arguments_and_a_dict_as_names(
    rig: Rig, value: object, arrives: object
) -> None:
    give = rig.huey.task(name="give")(lambda: value)
    take = rig.huey.task(name="take")(lambda *args, **kwargs: [list(args), kwargs])
    results = rig.huey.enqueue(give.s().then(take, 9))
    rig.run_all()
    args, kwargs = results.get()[1]
    assert (tuple(args), kwargs) == arrives


def test_a_pipeline_that_breaks_says_so_in_every_result_behind(rig: Rig, add: Any, broken: Any) -> None:
    results = rig.huey.enqueue(add.s(1).then(broken).then(add))
    rig.run_all()
    first, second, third = list(results)
    assert first.get() == 1
    for result in (second, third):
        with pytest.raises(TaskException, match="broken"):
            result.get()
    assert rig.states() == {"done": 1, "failed": 1}


def test_a_pipeline_goes_on_after_a_retry(rig: Rig, add: Any) -> None:
    runs: list[int] = []

    @rig.huey.task(name="second_time", retries=1)
    def second_time() -> int:
        runs.append(1)
        if len(runs) == 1:
            raise ValueError("once")
        return 5

    results = rig.huey.enqueue(second_time.s().then(add, 1))
    rig.run_all()
    assert results.get() == [5, 6]


def test_an_error_handler_gets_the_exception(rig: Rig, broken: Any) -> None:
    seen: list[RemoteError] = []
    handle = rig.huey.task(name="handle")(lambda note, error: seen.append(error))
    rig.huey.enqueue(broken.s().error(handle, "a note"))
    rig.run_all()
    assert [(error.type, error.message) for error in seen] == [("ValueError", "broken")]


def test_an_error_handler_is_called_once_however_often_the_body_was_tried(rig: Rig) -> None:
    seen: list[object] = []
    handle = rig.huey.task(name="handle")(seen.append)
    broken = rig.huey.task(name="breaks", retries=3)(lambda: 1 / 0)
    rig.huey.enqueue(broken.s().error(handle))
    rig.run_all()
    assert len(seen) == 1


# Groups and chords


def test_a_group_runs_all_and_its_results_are_in_order(rig: Rig, add: Any) -> None:
    results = rig.huey.enqueue(group([add.s(n, n) for n in range(10)]))
    rig.run_all()
    assert results.get() == [2 * n for n in range(10)]


def test_a_chord_hands_all_values_in_order_to_its_callback(rig: Rig, add: Any, gather: Any) -> None:
    result = rig.huey.enqueue(chord([add.s(n) for n in range(20)], gather.s()))
    rig.run_all(workers=4)
    assert result.get() == list(range(20))
    assert result.results.get() == list(range(20))


def test_a_chord_with_a_failing_member_fires_with_its_error(
    rig: Rig, add: Any, broken: Any, gather: Any
) -> None:
    result = rig.huey.enqueue(group([add.s(1), broken.s(), add.s(3)]).then(gather))
    rig.run_all()
    assert result.get() == [1, "ValueError('broken')", 3]


def test_a_chord_with_a_revoked_and_an_expired_member_fires_with_skips(
    rig: Rig, add: Any, gather: Any
) -> None:
    members = [add.s(1), add.s(2), add.s(3, expires=10)]
    rig.huey.revoke(members[1])
    result = rig.huey.enqueue(chord(members, gather.s()))
    rig.clock.advance(11)
    rig.run_all()
    assert result.get() == [1, "skipped", "skipped"]


def test_a_chord_of_pipelines_waits_for_their_last(rig: Rig, add: Any, broken: Any, gather: Any) -> None:
    members = [add.s(1).then(add, 10), add.s(2).then(broken).then(add, 1), add.s(3)]
    result = rig.huey.enqueue(chord(members, gather.s()))
    rig.run_all()
    assert result.get() == [11, "ValueError('broken')", 3]


def test_a_chord_in_a_chord_fires_inside_out(rig: Rig, add: Any, gather: Any) -> None:
    inner = chord([add.s(1), add.s(2)], gather.s())
    result = rig.huey.enqueue(chord([inner, add.s(3)], gather.s()))
    rig.run_all()
    assert result.get() == [[1, 2], 3]


def test_an_empty_chord_fires_at_once(rig: Rig, gather: Any) -> None:
    result = rig.huey.enqueue(chord([], gather.s()))
    rig.run_all()
    assert result.get() == []


def test_a_chords_callback_may_go_on_as_a_pipeline(rig: Rig, add: Any) -> None:
    total = rig.huey.task(name="total")(sum)
    result = rig.huey.enqueue(chord([add.s(1), add.s(2)], total.s()).then(add, 10))
    rig.run_all()
    assert result.pipeline_results.get() == [3, 13]


def test_a_member_that_was_retried_counts_once(rig: Rig, gather: Any, add: Any) -> None:
    runs: list[int] = []

    @rig.huey.task(name="second_time", retries=1)
    def second_time() -> int:
        runs.append(1)
        if len(runs) == 1:
            raise ValueError("once")
        return 5

    result = rig.huey.enqueue(chord([second_time.s(), add.s(1)], gather.s()))
    rig.run_all()
    assert result.get() == [5, 1]


def test_a_chords_callback_expires_from_when_it_was_enqueued(rig: Rig, add: Any, gather: Any) -> None:
    result = rig.huey.enqueue(chord([add.s(1)], gather.s(expires=30)))
    rig.run_next()
    rig.clock.advance(31)
    rig.run_all()
    assert rig.row(result.callback.id)["state"] == "cancelled"


def test_a_chords_callback_sends_the_signal_of_every_enqueued_job(rig: Rig, add: Any, gather: Any) -> None:
    heard: list[str] = []
    rig.huey.signal("enqueued")(lambda signal, task: heard.append(task.name))
    rig.huey.enqueue(chord([add.s(1)], gather.s()))
    rig.run_all()
    assert heard == ["add", "gather"]


def test_a_chord_whose_values_are_too_large_together_fails_in_view(tmp_path: Path) -> None:
    with rig_in(tmp_path / "small", max_job_bytes=4000) as rig:
        letter = rig.huey.task(name="letter")(lambda n: "x" * 3000)
        gather = rig.huey.task(name="gather")(len)
        result = rig.huey.enqueue(chord([letter.s(1), letter.s(2)], gather.s()))
        rig.run_all()
        row = rig.row(result.callback.id)
    assert (row["state"], row["error"].split(":")[0]) == ("failed", "JobTooLargeError")


def test_who_waits_for_a_callback_that_could_not_start_hears_of_it(tmp_path: Path) -> None:
    with rig_in(tmp_path / "small", max_job_bytes=4000) as rig:
        letter = rig.huey.task(name="letter")(lambda n: "x" * 3000)
        gather = rig.huey.task(name="gather")(len)
        result = rig.huey.enqueue(chord([letter.s(1), letter.s(2)], gather.s()))
        rig.run_all()
        with pytest.raises(TaskException, match="JobTooLarge"):
            result.get(blocking=True, timeout=0)


# Many at once


@pytest.mark.parametrize("kind", ["group", "chord", "map", "bulk"])
def test_a_thousand_are_one_commit(rig: Rig, add: Any, kind: str) -> None:
    def enqueue() -> None:
        if kind == "bulk":
            with rig.huey.bulk():
                for n in range(1000):
                    add(n)
        elif kind == "map":
            add.map(range(1000))
        else:
            members = [add.s(n) for n in range(1000)]
            rig.huey.enqueue(group(members) if kind == "group" else chord(members, add.s()))

    with rig.commits() as count:
        enqueue()
        assert count() == 1
    assert rig.states() == {"ready": 1000}


@pytest.mark.parametrize("kind", ["group", "chord", "map", "bulk"])
@pytest.mark.parametrize("refused", ["argument", "size", "depth"])
def test_all_are_refused_when_one_is(tmp_path: Path, kind: str, refused: str) -> None:
    errors = {"argument": PayloadError, "size": JobTooLargeError, "depth": QueueFullError}
    with rig_in(tmp_path / "small", max_pending_jobs=2, max_job_bytes=2000) as rig:
        task = rig.huey.task(name="take")(len)
        values = {"argument": [1, math.nan], "size": ["x", "x" * 2000], "depth": [1, 2, 3]}[refused]
        members = [task.s(value) for value in values]
        with pytest.raises(errors[refused]):
            enqueue_all(rig, kind, task, members, values)
        assert rig.states() == {}
        assert task(1) is not None  # and nothing is left behind that gathers


def enqueue_all(rig: Rig, kind: str, task: Any, members: list[Any], values: list[Any]) -> None:
    if kind == "map":
        task.map(values)
    elif kind == "bulk":
        with rig.huey.bulk():
            for member in members:
                rig.huey.enqueue(member)
    else:
        rig.huey.enqueue(group(members) if kind == "group" else chord(members, task.s()))
