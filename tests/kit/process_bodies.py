"""Bodies for the tests of processes, and a queue of their tasks that any process can make."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from huey.exceptions import CancelExecution, RetryTask

from app.kit.engine.api.durable import DurableHuey
from app.settings import Settings
from tests.kit.engine_rig import PATIENCE_S, Rig, until

rig: Rig
"""The queue that was made last in this process."""


class PlainError(Exception):
    """An error as most are."""


class WordyError(Exception):
    """An error that makes its message out of more than it keeps, and holds what cannot travel."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status}: {body}")
        self.status, self.lock = status, threading.Lock()


class EchoError(Exception):
    """An error that would say everything twice if it were made again of what it says."""

    def __init__(self, said: str) -> None:
        super().__init__(f"it said {said}")


def make_rig(settings: Settings) -> Rig:
    """Make a rig whose tasks run the functions of this module: on a thread, or in a process."""
    global rig  # noqa: PLW0603
    rig = Rig(settings.data_dir)
    rig.huey.attach(rig.database, settings, nullcontext, make_queue)
    rig.database.write(
        lambda connection: connection.execute("CREATE TABLE IF NOT EXISTS numbers (n INTEGER)")
    )
    rig.huey.task(name="on_thread", give_up_on=(WordyError,))(run)
    rig.huey.task(name="in_process", give_up_on=(WordyError,), process=True)(run)
    rig.huey.task(name="with_its_task", process=True, context=True)(run_with_task)
    rig.huey.task(name="as_coroutine", process=True)(run_as_coroutine)
    return rig


def make_queue(settings: Settings) -> DurableHuey:
    """Make the queue in a child."""
    return make_rig(settings).huey


def task(name: str) -> Any:
    """Return the class of one of the tasks above."""
    return rig.huey._registry.string_to_task(f"{__name__}.{name}")


def run(name: str, *args: Any) -> Any:
    """Call a function of this module."""
    return globals()[name](*args)


def run_with_task(name: str, *args: Any, task: Any) -> Any:
    """Call a function of this module with the task that runs."""
    return globals()[name](*args, task)


async def run_as_coroutine(name: str, *args: Any) -> Any:
    """Call a function of this module in a loop of its own."""
    return globals()[name](*args)


def is_running(pid: int) -> bool:
    """Say whether a process lives; one that only waits to be buried does not."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# What a body may be


def pid() -> int:
    return os.getpid()


def give(value: Any) -> Any:
    return value


def fork_and_return() -> tuple[str, int]:
    """Come out of the body twice: as the parent once the child has ended, and as the child."""
    child = os.fork()
    return ("child", 0) if child == 0 else ("parent", os.waitpid(child, 0)[1])


def make_odd_value(kind: str) -> Any:
    return {"function": lambda: 1, "nested": {"a": [{1, 2}]}, "nan": float("nan"), "large": "x" * 300_000}[
        kind
    ]


def fail(kind: str) -> None:
    class LocalError(Exception):
        pass

    match kind:
        case "plain":
            raise PlainError("no", 1)
        case "wordy":
            raise WordyError(404, "nothing there")
        case "echo":
            raise EchoError("no")
        case "local":
            raise LocalError("no")
        case "of the system":
            Path("/nowhere/at all").read_text()
        case "of letters":
            b"\xff".decode()
        case "group":
            raise ExceptionGroup("several", [ValueError("one"), KeyError("two")])
        case "chained":
            try:
                int("x")
            except ValueError as error:
                raise PlainError("no") from error
        case "exit":
            sys.exit("enough")
        case "retry later":
            raise RetryTask("not yet", delay=3600)
        case "cancel":
            raise CancelExecution("not any more")
        case "cancel and retry":
            raise CancelExecution("not for now", retry=True)
        case "locked":
            rig.huey.put_if_empty("rig.lock.taken", b"1")
            with rig.huey.lock_task("taken"):
                pass
        case "rate":
            limited = rig.huey.rate_limit("often", 1, per=60, delay=3600)(give)
            limited(1), limited(2)


def die(how: str) -> None:
    if how == "os._exit":
        os._exit(3)
    os.kill(os.getpid(), getattr(signal, how))
    time.sleep(PATIENCE_S)


def note(number: int) -> None:
    """Write a number where the test can see it while the body runs."""
    rig.database.write(lambda connection: connection.execute("INSERT INTO numbers VALUES (?)", (number,)))


def sleep() -> None:
    note(os.getpid())
    time.sleep(600)


def hold_the_interpreter() -> None:
    """Compute in C for ever, so that no other thread of the process gets a word in."""
    note(os.getpid())
    re.match(r"(a+)+$", "a" * 80 + "b")


def start_another_program() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as program:
        note(program.pid)


def lock_and_sleep() -> None:
    with rig.huey.lock_task("mine"):
        time.sleep(600)


def lock() -> str:
    with rig.huey.lock_task("mine"):
        return str(rig.rows("SELECT job FROM postroom_huey_data WHERE key = 'rig.lock.mine'")[0][0])


def report(done: int, total: int) -> None:
    rig.huey.progress(done, total, "half-way")


def report_when_told(done: int, total: int) -> None:
    """Say how far it is once there is a number, and end once there are two."""
    until(lambda: len(rig.rows("SELECT n FROM numbers")) == 1)
    rig.huey.progress(done, total)
    until(lambda: len(rig.rows("SELECT n FROM numbers")) == 2)


def enqueue_and_wait(name: str) -> list[int]:
    """Enqueue a job, and end when a worker of the parent has run it; return both processes."""
    result = rig.huey.enqueue(task(name)(("pid",)))
    until(lambda: rig.row(result.id)["state"] == "done")
    return [os.getpid(), result.get(blocking=False)]


def schedule() -> None:
    rig.huey.add_schedule(task("on_thread")(("pid",), eta=dt.datetime(2100, 1, 1)))  # noqa: DTZ001


def wait_for_a_result() -> None:
    rig.huey.enqueue(task("on_thread")(("pid",))).get(blocking=True)


def write_both_or_neither(fails: bool) -> None:
    with rig.database.transaction():
        note(5)
        rig.huey.enqueue(task("on_thread")(("pid",)))
        if fails:
            raise PlainError("neither")


def talk() -> str:
    """Print, and read all there is to read."""
    print("a word from the body")
    subprocess.run([sys.executable, "-c", "print('a word from its program')"], check=True)
    return sys.stdin.read()


def compute_in_a_pool() -> list[int]:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, [-1, -2])


def fork() -> int:
    """Fork a process that sleeps; return it once it does."""
    told, tell = os.pipe()
    fork = os.fork()
    if fork == 0:
        os.write(tell, b"!")
        time.sleep(600)
    os.read(told, 1)
    return fork


def end_a_fork() -> str:
    number = fork()
    os.kill(number, signal.SIGTERM)
    return signal.Signals(os.WTERMSIG(os.waitpid(number, 0)[1])).name


def die_beside_a_fork() -> None:
    note(fork())
    os._exit(3)


def signal_oneself() -> str:
    """Send what a terminal and systemd send; return what it does to a program that a body started."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        os.kill(os.getpid(), getattr(signal, name))
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    program.terminate()
    return signal.Signals(-program.wait(PATIENCE_S)).name


def niceness() -> int:
    return os.nice(0)


def tell_the_time_left(task: Any) -> list[Any]:
    return [task.id, task.time_remaining]


def ask_until_too_late(task: Any) -> None:
    while True:
        task.check_timeout()
        time.sleep(0.01)


def give_oneself_more_tries(task: Any) -> None:
    task.retries, task.retry_delay = 5, 3600
    raise PlainError("the body knows best when to be tried again")
