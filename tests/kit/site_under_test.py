"""The kit's own site with a few tasks and routes that tests need: slow bodies, and deaths at chosen points."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from flask import Flask, request

import tasks
from app import create_app
from app.bookshop import books as catalogue
from app.kit.database.file import database
from tasks.bookshop import alert_subscribers


@tasks.task()
def slow(seconds: float, marker: str) -> str:
    """Write a line when the body starts, take some time, write a line when it ends."""
    note(marker, "start")
    time.sleep(seconds)
    note(marker, "end")
    return marker


@tasks.task()
def pick_up(enqueued_at: float) -> float:
    """Return how long it took from the enqueue to the first line of the body."""
    return time.time() - enqueued_at


@tasks.task()
def poison(how: str) -> None:
    """Kill its process, or eat all the memory it may have, once others had time to start beside it."""
    time.sleep(0.3)
    if how == "os._exit":
        os._exit(1)
    if how == "SIGKILL":
        die()
    eaten = []
    while True:
        eaten.append(bytearray(2**20))


@tasks.task()
def hold_interpreter(seconds: float) -> None:
    """Let no other thread of the process run, as long work in C does."""
    ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))


@tasks.task()
def leave_orphan(seconds: float) -> int:
    """Fork a process that stays; return which."""
    child = os.fork()
    if child == 0:
        time.sleep(seconds)
        os._exit(0)
    return child


@tasks.task(timeout=2)
def hang() -> None:
    """Never return."""
    threading.Event().wait()


@tasks.task(process=True)
def compute(seconds: float, marker: str) -> int:
    """Write a line, compute for some time, write a line; return the process it was."""
    note(marker, "start")
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        pass
    note(marker, "end")
    return os.getpid()


@tasks.task(process=True, timeout=1)
def hang_in_process() -> None:
    """Never return, in a process of its own."""
    threading.Event().wait()


@tasks.task()
def leave_thread_busy(seconds: float) -> None:
    """Leave a thread behind that goes on when the body has ended."""
    threading.Thread(target=time.sleep, args=(seconds,)).start()


def note(marker: str, what: str) -> None:
    """Append a line to the file in which tests see what really ran; one write(), so kills tear nothing."""
    line = f"{what} {marker} {os.getpid()} {time.time()}\n".encode()
    descriptor = os.open(Path(os.environ["NOTES"]), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line)
    os.close(descriptor)


def die() -> None:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def hold_recycling(consumer: Any, file: Path) -> None:
    """Let the process not replace itself while the file is there, so that a test can look at it first."""
    recycle_if_stuck = consumer.recycle_if_stuck
    consumer.recycle_if_stuck = lambda: None if file.exists() else recycle_if_stuck()


def fire_only_what_tests_made() -> None:
    """Keep the kit's own tasks from firing by the clock: tests count jobs, at any minute of an hour."""
    fire = tasks.huey.enqueue_cron

    def fire_if_made_by_tests(task: Any, minute: int) -> bool:
        return type(task).__module__.startswith("tests.") and fire(task, minute)

    tasks.huey.enqueue_cron = fire_if_made_by_tests  # type: ignore[method-assign]


def make() -> Flask:
    """Build the app with its extra routes."""
    app = create_app()
    fire_only_what_tests_made()
    if "HOLD" in os.environ:
        hold_recycling(app.extensions["consumer"], Path(os.environ["HOLD"]))

    @app.post("/api/test/slow")
    def start_slow() -> dict[str, str]:
        body = request.get_json()
        return {"id": slow(body["seconds"], body["marker"]).id}

    @app.post("/api/test/hold-interpreter")
    def start_holding() -> dict[str, str]:
        seconds = request.get_json()["seconds"]
        return {"id": hold_interpreter.schedule((seconds,), delay=1).id}  # this answer is to get out

    @app.post("/api/test/orphan")
    def start_orphan() -> dict[str, str]:
        return {"id": leave_orphan(request.get_json()["seconds"]).id}

    @app.post("/api/test/leave-thread-busy")
    def start_thread() -> dict[str, str]:
        return {"id": leave_thread_busy(request.get_json()["seconds"]).id}

    @app.post("/api/test/pick-up")
    def start_pick_up() -> dict[str, str]:
        delay_s = request.get_json().get("delay_s", 0)
        due_at = time.time() + delay_s
        return {"id": (pick_up.schedule((due_at,), delay=delay_s) if delay_s else pick_up(due_at)).id}

    @app.post("/api/test/poison")
    def start_poison() -> dict[str, list[str]]:
        """Enqueue neighbours and a poison among the first of them, all at once."""
        body = request.get_json()
        with database.transaction():
            ids = [slow(0.6, str(n)).id for n in range(3)]
            ids.append(poison(body["how"]).id)
            ids += [slow(0.1, str(n)).id for n in range(3, body["neighbours"])]
        return {"ids": ids}

    @app.post("/api/test/hang")
    def start_hanging() -> dict[str, list[str]]:
        """Enqueue bodies that never return, and short ones behind them, all at once."""
        body = request.get_json()
        with database.transaction():
            hung = [hang().id for _ in range(body["hanging"])]
            others = [slow(0, str(n)).id for n in range(body["others"])]
        return {"hung": hung, "others": others}

    @app.post("/api/test/processes")
    def start_in_processes() -> dict[str, list[str]]:
        """Enqueue bodies that compute in processes of their own, and some that hang there."""
        body = request.get_json()
        with database.transaction():
            computing = [compute(body["seconds"], str(n)).id for n in range(body["computing"])]
            return {"hung": [hang_in_process().id for _ in range(body["hanging"])], "computing": computing}

    @app.post("/api/test/book")
    def add_book_and_die() -> dict[str, str]:
        """Add a book and its alert in one transaction; die before the commit or after it."""
        moment = request.get_json()["die"]
        with database.transaction():
            book = catalogue.add_book("Both or Neither", "Ada Quill", "Mystery")
            job = alert_subscribers(book.id)
            if moment == "before":
                die()
        if moment == "after":
            die()
        return {"id": job.id}

    return app


app = make()
