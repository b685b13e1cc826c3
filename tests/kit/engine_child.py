"""A second process on the same queue, started by the tests of instances, consumer and clock."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.kit.engine_rig import Rig

PROJECT_DIR = Path(__file__).resolve().parents[2]
NOTES = "notes.txt"
IN_A_CHILD = sys.argv[0] == "-c"
"""Whether this is a process that `child` started: there, and only there, bodies hang."""


def make_rig(folder: Path) -> Rig:
    """Make a rig whose tasks any process knows: each says in a file that it ran, and where."""
    rig = Rig(folder)

    def note(word: object) -> None:
        with (folder / NOTES).open("a") as notes:
            notes.write(f"{word} {os.getpid()}\n")

    rig.huey.task(name="note")(note)

    def note_and_hang(word: object) -> None:
        note(word)
        if IN_A_CHILD:
            threading.Event().wait()

    rig.huey.task(name="note_and_hang")(note_and_hang)
    return rig


def task_of(rig: Rig, name: str) -> Any:
    """Return one of the tasks above, to be called."""
    kind = rig.huey._registry.string_to_task(f"{__name__}.{name}")
    return lambda *args: rig.huey.enqueue(kind(args))


def notes(folder: Path) -> list[tuple[str, int]]:
    """Return what the tasks noted: a word, and the process they ran in."""
    path = folder / NOTES
    lines = path.read_text().splitlines() if path.exists() else []
    return [(line.split()[0], int(line.split()[1])) for line in lines]


@contextmanager
def child(folder: Path, what: str) -> Iterator[subprocess.Popen[str]]:
    """Run `what` (see main) in a process of its own; it has begun once the block begins."""
    command = [sys.executable, "-c", "from tests.kit import engine_child as c; c.main()", str(folder), what]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=PROJECT_DIR, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def main() -> None:
    """Consume, or enqueue one note; until the end of the input."""
    folder, what = Path(sys.argv[1]), sys.argv[2]
    rig = make_rig(folder)
    if what == "consume":
        consumer = rig.huey.create_consumer(workers=2)
        consumer.start(always=True)
    elif what == "join and fork":
        rig.huey.create_consumer(workers=1).instance.join(1)
        if os.fork() == 0:
            sys.stdin.read()
            os._exit(0)
    elif what == "enqueue":
        task_of(rig, "note")("elsewhere")
    print("ready", flush=True)
    sys.stdin.read()
    if what == "consume":
        consumer.stop()
