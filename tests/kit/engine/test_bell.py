"""The bell and the calls: nobody who waits is forgotten, nobody who need not is woken (P7)."""

from __future__ import annotations

import threading
import time

from app.kit.engine.jobs.bells import Bell, EndCalls
from tests.kit.engine_rig import PATIENCE_S, Threads, until


def sleepers(bell: Bell) -> int:
    return len(bell._seats)


def start_sleepers(bell: Bell, threads: Threads, count: int) -> list[threading.Thread]:
    started = [threads.start(lambda: bell.wait(bell.rings)) for _ in range(count)]
    until(lambda: sleepers(bell) == count, "sleep")
    return started


def test_a_ring_between_the_look_and_the_wait_is_not_missed() -> None:
    bell = Bell()
    seen = bell.rings
    bell.ring()
    bell.wait(seen)  # would never return


def test_a_ring_wakes_as_many_as_it_says() -> None:
    bell = Bell()
    with Threads() as threads:
        start_sleepers(bell, threads, 5)
        bell.ring()
        until(lambda: sleepers(bell) == 4)
        bell.ring(2)
        until(lambda: sleepers(bell) == 2)
        bell.ring_all()
    assert sleepers(bell) == 0


def test_a_ring_for_nobody_wakes_nobody_but_is_remembered() -> None:
    bell = Bell()
    with Threads() as threads:
        start_sleepers(bell, threads, 1)
        seen = bell.rings
        bell.ring(0)
        assert sleepers(bell) == 1
        bell.wait(seen)
        bell.ring_all()


def test_a_wait_ends_with_its_time() -> None:
    bell, began = Bell(), time.monotonic()
    bell.wait(bell.rings, 0.01)
    assert 0.01 <= time.monotonic() - began < PATIENCE_S


def test_eight_threads_never_miss_one_of_many_rings() -> None:
    bell, done = Bell(), threading.Event()
    work: list[int] = []

    def worker() -> None:
        while not done.is_set():
            seen = bell.rings
            while work:
                try:
                    work.pop()
                except IndexError:
                    break
            if not done.is_set():
                bell.wait(seen)

    with Threads() as threads:
        for _ in range(8):
            threads.start(worker)
        for n in range(500):
            work.append(n)
            bell.ring()
        until(lambda: not work, "the last of the work")
        done.set()
        bell.ring_all()
    assert threads.errors == []


# Calls at a job's end


def test_a_call_reaches_everybody_who_waits_for_that_job_and_nobody_else() -> None:
    calls = EndCalls()
    with calls.expect(["a"]) as first, calls.expect(["a"]) as second, calls.expect(["b"]) as other:
        calls.call("a")
        assert (first.is_set(), second.is_set(), other.is_set()) == (True, True, False)
        calls.call_all()
        assert other.is_set()


def test_a_start_is_called_to_those_who_want_every_step() -> None:
    calls = EndCalls()
    calls.call_at_start("a")
    with (
        calls.expect(["a"]) as end,
        calls.expect(["a"], every_step=True) as step,
        calls.expect(["b"], True) as other,
    ):
        calls.call_at_start("a")
        assert (end.is_set(), step.is_set(), other.is_set()) == (False, True, False)
        step.clear()
        calls.call("a")
        assert (end.is_set(), step.is_set()) == (True, True)
    assert calls._every_step == set()


def test_a_call_for_nobody_is_nothing() -> None:
    calls = EndCalls()
    calls.call("a")
    with calls.expect(["a"]) as event:
        assert not event.is_set()


def test_nothing_is_kept_of_those_who_went_away() -> None:
    calls = EndCalls()
    with calls.expect(["a"]), calls.expect(["a"]):
        pass
    assert calls._waiting == {}


def test_a_closed_process_makes_nobody_wait_until_it_opens_again() -> None:
    calls = EndCalls()
    with calls.expect(["a"]) as before:
        calls.close()
        assert before.is_set()
    with calls.expect(["a"]) as during:
        assert during.is_set()
    calls.open()
    with calls.expect(["a"]) as after:
        assert not after.is_set()
