"""Bodies in processes of their own: as on threads, but a limit of time is real and a death harms nobody else."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from huey.exceptions import ConfigurationError

import tasks
from app import create_app
from app.kit.engine.body import messages as body_messages
from app.kit.engine.body.parent import START_WITHIN_S
from app.settings import Settings
from tests.kit import process_bodies
from tests.kit.engine_rig import PATIENCE_S, Rig, Threads, sleeps_for, until
from tests.kit.process_bodies import is_running, make_rig, note, task

PROJECT_DIR = Path(__file__).resolve().parents[3]
on_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither these signals nor groups")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a process that cannot listen")


@pytest.fixture(scope="module")
def shared_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A queue for all tests of this file, so that they share a child, whose start takes a while."""
    rig = make_rig(Settings(data_dir=tmp_path_factory.mktemp("data")))
    yield rig
    rig.huey.body_processes.end_unused(0)
    rig.close()


@pytest.fixture
def rig(shared_rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """The shared queue, empty."""
    monkeypatch.setattr(process_bodies, "rig", shared_rig)
    logging.getLogger("huey").setLevel(logging.CRITICAL)  # errors that tests provoke
    yield shared_rig
    for table in (
        "postroom_attempts",
        "postroom_jobs",
        "postroom_huey_data",
        "postroom_huey_counters",
        "numbers",
    ):
        shared_rig.database.write(lambda connection, table=table: connection.execute(f"DELETE FROM {table}"))  # type: ignore[misc]


def add(rig: Rig, *args: Any, on: str = "in_process", **options: Any) -> str:
    """Enqueue a job that calls a function of process_bodies; return its id."""
    return str(rig.huey.enqueue(task(on)(args, **options)).id)


def run(rig: Rig, *args: Any, **options: Any) -> Any:
    """Run such a job on this thread; return its row."""
    uuid = add(rig, *args, **options)
    rig.run_next()
    return rig.row(uuid)


def value_of(rig: Rig, *args: Any, **options: Any) -> Any:
    """Run such a job; return its result."""
    row = run(rig, *args, **options)
    assert row["state"] == "done", row["error"]
    return rig.huey.serializer.deserialize(row["result"])


def seen(rig: Rig, uuid: str) -> dict[str, Any]:
    """Return a job as its holder sees it."""
    job = rig.huey.job(uuid)
    assert job is not None
    return job


def noted(rig: Rig) -> int:
    """Wait for the first number that a body notes."""
    until(lambda: rig.rows("SELECT n FROM numbers"))
    return int(rig.rows("SELECT n FROM numbers")[0][0])


# The process


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks nothing")
def test_a_fork_of_a_body_does_not_come_out_of_it(rig: Rig) -> None:
    assert value_of(rig, "fork_and_return") == ("parent", 0)
    assert value_of(rig, "give", 1) == 1


def test_a_body_runs_in_another_process_and_the_next_one_in_the_same(rig: Rig) -> None:
    first, second = value_of(rig, "pid"), value_of(rig, "pid")
    assert (first != os.getpid(), first == second) == (True, True)
    assert value_of(rig, "pid", on="on_thread") == os.getpid()
    assert value_of(rig, "pid", on="as_coroutine") == first


@on_posix
def test_it_leaves_the_computing_time_to_the_pages_first(rig: Rig) -> None:
    assert value_of(rig, "niceness") > os.nice(0)


def test_what_a_body_prints_goes_to_the_log_and_it_has_nothing_to_read(
    rig: Rig, capfd: pytest.CaptureFixture[str]
) -> None:
    rig.huey.body_processes.end_unused(0)  # the one that starts next writes where this test reads
    assert value_of(rig, "talk") == ""
    assert capfd.readouterr().err.splitlines() == ["a word from the body", "a word from its program"]
    rig.huey.body_processes.end_unused(0)


def test_processes_that_nobody_used_for_a_while_are_ended_but_for_one(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = rig.huey.body_processes
    processes.end_unused(0)
    for process in [processes._start(process_bodies.__name__) for _ in range(2)]:
        processes._keep(process)
    older, newer = (process for _, process in processes._unused)
    monkeypatch.setattr("app.kit.engine.body.processes.IDLE_S", 0.0)
    for _ in range(2):
        processes.keep_ready()
    until(lambda: not older.is_alive, "its end")
    assert [process for _, process in processes._unused] == [newer]


def test_one_starts_before_a_body_needs_it(rig: Rig) -> None:
    processes = rig.huey.body_processes
    processes.end_unused(0)
    processes.keep_ready()
    until(lambda: processes._unused, "a process ahead of time")
    ((_, process),) = processes._unused
    assert value_of(rig, "pid") == process._process.pid


def test_a_job_whose_process_starts_has_not_begun(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = rig.huey.body_processes
    processes.end_unused(0)
    starting: list[list[int]] = []

    def start(module: str) -> Any:
        starting.append([n for (n,) in rig.rows("SELECT starting FROM postroom_jobs")])
        process = start_really(module)
        monkeypatch.setattr(process, "call", call)
        return process

    def call(*_: Any) -> body_messages.Answer:
        starting.append([n for (n,) in rig.rows("SELECT starting FROM postroom_jobs")])
        return body_messages.Answer(value=rig.huey.serializer.serialize(None))

    start_really = processes._start
    monkeypatch.setattr(processes, "_start", start)
    assert value_of(rig, "pid") is None
    assert starting == [[1], [0]]
    processes.end_unused(0)


def test_the_consumers_stop_ends_it_and_the_next_body_has_another(rig: Rig) -> None:
    pid = value_of(rig, "pid")
    with rig.consuming(1):
        pass
    until(lambda: not is_running(pid), "its end")
    assert value_of(rig, "pid") != pid


def test_one_that_died_while_it_had_nothing_to_do_is_not_called(rig: Rig) -> None:
    pid = value_of(rig, "pid")
    os.kill(pid, 9 if sys.platform != "win32" else 15)
    until(lambda: not any(process.is_alive for _, process in rig.huey.body_processes._unused))
    assert value_of(rig, "pid") != pid


# Values, errors, signals of Huey's: as on a thread


@pytest.mark.parametrize("value", [None, [], "text", {"a": (1, b"2")}, 3], ids=str)
def test_a_result_is_what_the_body_returned(rig: Rig, value: Any) -> None:
    assert value_of(rig, "give", value) == value


@pytest.mark.parametrize("kind", ["function", "nested", "nan", "large"])
def test_a_value_that_no_job_can_keep_fails_it_without_a_retry_as_on_a_thread(rig: Rig, kind: str) -> None:
    rows = [run(rig, "make_odd_value", kind, on=on, retries=2) for on in ("in_process", "on_thread")]
    assert [row["state"] for row in rows] == ["failed", "failed"]
    assert rows[0]["error"] == rows[1]["error"]


KINDS = ["plain", "wordy", "echo", "of the system", "of letters", "group", "exit", "retry later", "cancel",
         "cancel and retry", "locked", "rate"]  # fmt: skip


@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_body_raises_does_what_it_does_on_a_thread(rig: Rig, kind: str, retries: int) -> None:
    def outcome(on: str) -> tuple[Any, ...]:
        row = run(rig, "fail", kind, on=on, retries=retries, retry_delay=60)
        tries = rig.rows("SELECT outcome, error FROM postroom_attempts WHERE job = ?", row["id"])
        found = tuple(row[name] for name in ("state", "error", "attempt", "waits", "retries", "retry_delay"))
        rig.database.write(lambda connection: connection.execute("DELETE FROM postroom_huey_counters"))
        rig.database.write(lambda connection: connection.execute("DELETE FROM postroom_huey_data"))
        return *found, tries

    assert outcome("in_process") == outcome("on_thread")


def test_an_error_that_cannot_travel_is_told_by_its_name_and_words(rig: Rig) -> None:
    assert run(rig, "fail", "local")["error"] == "RemoteError: LocalError: no"


def test_an_error_keeps_what_can_travel_of_what_it_holds() -> None:
    error = body_messages.pack(process_bodies.WordyError(404, "nothing there")).unpack()
    assert isinstance(error, process_bodies.WordyError)
    assert (error.status, str(error), hasattr(error, "lock")) == (404, "404: nothing there", False)


def test_the_traceback_is_that_of_the_child(rig: Rig) -> None:
    row = run(rig, "fail", "chained")
    ((text,),) = rig.rows("SELECT traceback FROM postroom_attempts WHERE job = ?", row["id"])
    assert text.startswith("Traceback (most recent call last):")
    assert text.rstrip().endswith("process_bodies.PlainError: no")
    assert 'int("x")' in text
    assert 'raise PlainError("no") from error' in text
    assert "body_processes.py" not in text


def test_a_body_may_use_its_task(rig: Rig) -> None:
    uuid, left_s = value_of(rig, "tell_the_time_left", on="with_its_task", timeout=500)
    assert (uuid in {row[0] for row in rig.rows("SELECT uuid FROM postroom_jobs")}, 0 < left_s <= 500) == (
        True,
        True,
    )
    row = run(rig, "give_oneself_more_tries", on="with_its_task")
    assert (row["state"], row["retries"], row["retry_delay"]) == ("scheduled", 4, 3600)


def test_what_follows_a_body_need_not_be_known_in_its_process(rig: Rig) -> None:
    received: list[Any] = []
    follow = rig.huey.task(name="follow")(received.append)
    rig.huey.enqueue(task("in_process")(("give", 3)).then(follow))
    rig.run_next()
    rig.run_next()
    assert received == [3]
    follow.unregister()


# The limit of time


def test_a_body_that_runs_too_long_is_killed_and_fails_by_name(rig: Rig) -> None:
    row = run(rig, "sleep", timeout=0.2)
    message = "TaskTimeout: it ran longer than its timeout of 0.2 s, and its process was killed"
    assert (row["state"], row["error"], row["deaths"]) == ("failed", message, 0)
    assert not is_running(noted(rig))


def test_it_is_tried_again_as_its_task_says(rig: Rig) -> None:
    row = run(rig, "sleep", timeout=0.1, retries=1)
    assert (row["state"], row["retries"]) == ("ready", 0)
    assert [row[0] for row in rig.rows("SELECT outcome FROM postroom_attempts")] == ["error"]


@on_posix
def test_what_the_body_has_started_is_killed_too(rig: Rig) -> None:
    run(rig, "start_another_program", timeout=1)
    until(lambda: not is_running(noted(rig)), "the end of the program")


def test_a_body_that_holds_the_interpreter_is_killed_all_the_same(rig: Rig) -> None:
    assert run(rig, "hold_the_interpreter", timeout=0.2)["error"].startswith("TaskTimeout")


def test_a_body_can_see_that_its_time_is_up_and_leave_by_itself(rig: Rig) -> None:
    pid = value_of(rig, "pid")
    assert (
        run(rig, "ask_until_too_late", on="with_its_task", timeout=0.1)["error"]
        == "TaskTimeout: timeout 0.1s"
    )
    assert value_of(rig, "pid") == pid


def test_what_a_killed_body_has_locked_is_free_for_the_next(rig: Rig) -> None:
    run(rig, "lock_and_sleep", timeout=0.3)
    assert rig.rows("SELECT key FROM postroom_huey_data WHERE job IS NOT NULL") == []
    uuid = add(rig, "lock")
    rig.run_next()
    assert rig.huey.serializer.deserialize(rig.row(uuid)["result"]) == uuid, "the lock is its job's"


def test_its_worker_is_not_overdue_while_the_process_is_started_and_killed(rig: Rig) -> None:
    allowed_s = [
        rig.row(add(rig, "pid", on=on, timeout=5))["timeout_s"] for on in ("on_thread", "in_process")
    ]
    assert allowed_s == [5, 5 + START_WITHIN_S + 10]


# Death


@on_posix
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("os._exit", "it ended with exit status 3"),
        ("SIGKILL", "it was killed by SIGKILL, as the system does when memory runs out"),
        ("SIGSEGV", "it was killed by SIGSEGV"),
    ],
)
def test_a_child_that_dies_fails_its_body_by_name_and_nothing_else(rig: Rig, how: str, message: str) -> None:
    row = run(rig, "die", how)
    assert row["error"] == f"BodyProcessError: the body's process died under it: {message}"
    assert (row["state"], row["attempt"], row["deaths"]) == ("failed", 1, 0)
    assert value_of(rig, "pid") != os.getpid()


def test_a_body_whose_child_died_is_tried_again_as_its_task_says(rig: Rig) -> None:
    row = run(rig, "die", "os._exit", retries=1)
    assert (row["state"], row["retries"], row["deaths"]) == ("ready", 0, 0)


@on_posix
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_body_may_fork_and_its_death_is_heard_though_its_forks_live(rig: Rig) -> None:
    assert value_of(rig, "compute_in_a_pool") == [1, 2]
    assert value_of(rig, "end_a_fork") == "SIGTERM"
    assert "exit status 3" in run(rig, "die_beside_a_fork")["error"]
    until(lambda: not is_running(noted(rig)), "the end of the fork")


@on_posix
def test_the_signals_that_end_a_site_are_left_to_the_parent(rig: Rig) -> None:
    assert value_of(rig, "signal_oneself") == "SIGTERM"


PARENT = """
import sys
from pathlib import Path
from app.settings import Settings
from tests.kit.process_bodies import make_rig, task
rig = make_rig(Settings(data_dir=Path(sys.argv[1])))
sys.platform = sys.argv[3]
rig.huey.enqueue(task("in_process")((sys.argv[2],)))
rig.run_next()
"""


@pytest.mark.parametrize(
    ("body", "platform"),
    [
        ("sleep", sys.platform),
        pytest.param("sleep", "one that is not Linux", marks=on_linux),
        pytest.param("hold_the_interpreter", "linux", marks=on_linux),
    ],
)
def test_a_child_does_not_outlive_its_parent(rig: Rig, body: str, platform: str) -> None:
    command = [sys.executable, "-c", PARENT, str(rig.folder), body, platform]
    parent = subprocess.Popen(command, cwd=PROJECT_DIR)
    child = noted(rig)
    assert is_running(child)
    parent.kill()
    parent.wait()
    until(lambda: not is_running(child), "its end")


# What a body does to the queue


@pytest.fixture
def unlooking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks by himself what other processes have committed: who is not told waits too long."""
    monkeypatch.setattr("app.kit.engine.operate.control.ALONE_LOOK_S", 2 * PATIENCE_S)
    monkeypatch.setattr("app.kit.engine.consumer.clock.LOOK_S", 2 * PATIENCE_S)


def test_its_progress_is_kept(rig: Rig) -> None:
    uuid = run(rig, "report", 1, 2)["uuid"]
    assert seen(rig, uuid)["progress"] == {"done": 1, "total": 2, "note": "half-way"}


@pytest.mark.usefixtures("unlooking")
def test_who_waits_for_its_progress_hears_of_it_at_once(rig: Rig) -> None:
    uuid = add(rig, "report_when_told", 1, 2)
    with rig.consuming(1), Threads() as threads:
        until(lambda: rig.row(uuid)["state"] == "running")
        version = str(seen(rig, uuid)["version"])
        thread = threads.start(lambda: rig.huey.wait_for_change(uuid, version, PATIENCE_S))
        until(lambda: sleeps_for(rig, uuid), "a waiting thread")
        note(1)
        thread.join(PATIENCE_S / 2)
        assert not thread.is_alive()
        assert seen(rig, uuid)["progress"]["done"] == 1
        note(2)
        assert rig.huey.wait_until_idle(PATIENCE_S)


@pytest.mark.usefixtures("unlooking")
@pytest.mark.parametrize("name", ["on_thread", "in_process"])
def test_what_it_enqueues_is_there_at_once_and_a_worker_of_the_parent_takes_it(rig: Rig, name: str) -> None:
    with rig.consuming(2):
        uuid = add(rig, "enqueue_and_wait", name)
        assert rig.huey.wait_until_idle(PATIENCE_S)
    first, second = rig.huey.serializer.deserialize(rig.row(uuid)["result"])
    assert first != second, "bodies that run at once have a process each"
    assert (second == os.getpid()) == (name == "on_thread")


def test_what_it_schedules_wakes_the_clock_of_the_parent(rig: Rig) -> None:
    before = rig.huey.clock_bell.rings
    value_of(rig, "schedule")
    assert rig.huey.clock_bell.rings > before


def test_waiting_for_a_result_is_refused_there_too(rig: Rig) -> None:
    assert run(rig, "wait_for_a_result")["error"].startswith("DeadlockError")


@pytest.mark.parametrize("fails", [False, True])
def test_its_transaction_is_kept_whole_or_not_at_all(rig: Rig, fails: bool) -> None:
    run(rig, "write_both_or_neither", fails)
    assert (len(rig.rows("SELECT n FROM numbers")), rig.states()) == (
        (0, {"failed": 1}) if fails else (1, {"done": 1, "ready": 1})
    )


# What cannot be


def test_a_task_made_inside_a_function_is_not_found_and_the_job_says_so(rig: Rig) -> None:
    hidden = rig.huey.task(name="hidden", process=True)(lambda: 1)
    uuid = hidden().id
    rig.run_next()
    hidden.unregister()
    assert rig.row(uuid)["error"] == (
        f"TaskNotFoundError: {__name__}.hidden is not there when a process of its own imports {__name__}: make a "
        "task with process=True at the top of a module, not inside a function"
    )


def make_nothing(settings: Settings) -> Any:
    """Fail where the queue should be made."""
    raise OSError("there is no queue here")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_nothing, "the body's process could not start: OSError: there is no queue here"),
        (None, "the queue was not told how it is made in another process: see attach()"),
    ],
)
def test_a_process_that_cannot_start_fails_the_body_in_view(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, make: Any, message: str
) -> None:
    monkeypatch.setattr(
        rig.huey, "body_processes", type(rig.huey.body_processes)(rig.huey, make, rig.settings)
    )
    assert run(rig, "pid")["error"] == f"BodyProcessError: {message}"


@on_posix
def test_a_python_that_cannot_start_fails_the_body_in_view(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.huey.body_processes.end_unused(0)
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert "no process for the body could be started" in run(rig, "pid")["error"]
    monkeypatch.setattr(sys, "executable", "false")
    assert "died as it started: it ended with exit status 1" in run(rig, "pid")["error"]


def test_a_process_that_is_slow_to_start_is_given_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.huey.body_processes.end_unused(0)
    monkeypatch.setattr("app.kit.engine.body.parent.START_WITHIN_S", 0.0)
    assert "did not start within 0 s" in run(rig, "pid")["error"]


def test_a_batch_task_cannot_have_a_process(rig: Rig) -> None:
    with pytest.raises(ConfigurationError, match=r"process=True.*a batch runs on a thread"):
        rig.huey.batch_task(every_s=1, process=True)


def test_in_immediate_mode_and_called_directly_it_runs_in_place(rig: Rig) -> None:
    local = rig.huey.task(name="local", process=True)(threading.get_ident)
    rig.huey.immediate = True
    try:
        assert local().get() == local.call_local() == threading.get_ident()
    finally:
        rig.huey.immediate = False
        local.unregister()


# The site


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """A function that imports a new module of tasks with some source."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[Any] = []

    def make(source: str) -> Any:
        name = f"own_tasks_{len(made)}"
        (tmp_path / f"{name}.py").write_text(source)
        made.append(importlib.import_module(name))
        return made[-1]

    yield make
    for one in made:
        one.body.unregister()
        del sys.modules[one.__name__]


IN_THE_SITE = """
import logging
from flask import current_app
from app.kit.database.file import database
from tasks import task

@task(process=True)
def body():
    settings = current_app.extensions["settings"]
    logging.getLogger("own").info("the token is %s", settings.admin_token)
    return [str(database.path), settings.mail_from]
"""
MAKES_AN_APP = "from pathlib import Path\nfrom app import create_app\nfrom app.settings import Settings\n" + (
    "create_app(Settings(data_dir=Path('/nowhere')))\n"
)


def test_in_the_site_bodies_have_its_settings_its_database_and_a_log_without_secrets(
    app: Flask, module: Callable[[str], Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(
        data_dir=tmp_path / "data", mail_from="by.hand@example.com", admin_token="a-secret-token"
    )
    bodies = [module(IN_THE_SITE).body, module(MAKES_AN_APP + IN_THE_SITE).body]
    site = create_app(settings)
    results = [body() for body in bodies]
    with site.app_context():
        consumer = tasks.huey.create_consumer(workers=1)  # one, so that they share a process
        consumer.start(always=True)
        assert tasks.huey.wait_until_idle(PATIENCE_S)
        consumer.stop()
    assert [result.get(blocking=False) for result in results] == [
        [str(settings.database_path), "by.hand@example.com"]
    ] * 2
    said = capfd.readouterr().err
    assert said.count("the token is ***") == 2
    assert "a-secret-token" not in said
    site.extensions["database"].close()
