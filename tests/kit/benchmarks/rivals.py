"""What the rivals need: an environment of their own with the pinned packages, and a redis-server of their own."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.kit.benchmarks import machine

PROJECT_DIR = Path(__file__).resolve().parents[3]
VENV_DIR = PROJECT_DIR / ".venv-benchmark"
PYTHON = VENV_DIR / "bin/python"
STAMP = VENV_DIR / "benchmark-stamp"
"""Written last by an install: Python's version and the pins, as they were then."""

RIVALS = (
    "huey==3.5.4",
    "redis==8.1.0",
    "celery[redis]==5.7.0",
    "rq==2.12.0",
    "dramatiq[redis]==2.2.1",
    "flexiq==2.1.0",
    "firm-queue==1.0.0",
    "flask==3.1.3",
    "gunicorn==27.0.1",
    "flask-mail==0.10.0",
)
BROUGHT_ALONG = (
    "alembic==1.20.1",
    "amqp==5.4.2",
    "billiard==4.3.2",
    "blinker==1.9.0",
    "cbor2==6.3.0",
    "click==8.5.1",
    "click-didyoumean==0.3.1",
    "click-plugins==1.1.1.2",
    "click-repl==0.4.1",
    "cloudpickle==3.1.2",
    "croniter==7.0.0",
    "firm-core==1.0.0",
    "itsdangerous==2.2.0",
    "jinja2==3.1.6",
    "kombu==5.7.0",
    "mako==1.4.3",
    "markupsafe==3.0.4",
    "msgpack==1.2.4",
    "packaging==26.3",
    "prompt-toolkit==3.0.53",
    "python-dateutil==2.9.0.post0",
    "six==1.17.0",
    "sqlalchemy==2.1.9",
    "typing-extensions==4.16.0",
    "tzlocal==5.4.5",
    "vine==5.1.0",
    "wcwidth==0.9.4",
    "werkzeug==3.1.9",
)

REDIS_STARTS_WITHIN_S = 10.0
REDIS_STOPS_WITHIN_S = 10.0


def ensure_environment() -> None:
    """Install the rivals into .venv-benchmark, unless they are there.

    What cannot be installed is missing afterwards, and the contestant that needs it is skipped by name.
    """
    stamp = "\n".join([sys.version, *RIVALS, *BROUGHT_ALONG])
    with suppress(OSError):
        if STAMP.read_text("utf-8") == stamp:
            return
    print("Benchmark: installing the rivals into .venv-benchmark", file=sys.stderr, flush=True)
    shutil.rmtree(VENV_DIR, ignore_errors=True)
    base_python = getattr(sys, "_base_executable", None) or sys.executable  # not the one of some environment
    if not _succeeds([base_python, "-m", "venv", str(VENV_DIR)]):
        return
    constraints = VENV_DIR / "constraints.txt"
    pins = [re.sub(r"\[.*\]", "", pin) for pin in (*RIVALS, *BROUGHT_ALONG)]  # a constraint names no extras
    constraints.write_text("\n".join(pins), "utf-8")
    install = [str(PYTHON), "-m", "pip", "install", "--no-user", "--disable-pip-version-check", "--quiet"]
    install += ["-c", str(constraints)]
    if _succeeds([*install, *RIVALS]):
        STAMP.write_text(stamp, "utf-8")
        return
    for rival in RIVALS:  # one of them spoils it; the others need not suffer
        _succeeds([*install, rival])


def _succeeds(command: list[str]) -> bool:
    """Run an installer; what it says goes to stderr, for stdout is the table's."""
    return subprocess.call(command, stdout=sys.stderr) == 0


def redis_version() -> str | None:
    """Return the version of the redis-server on PATH; None without one that runs."""
    try:
        said = subprocess.check_output(["redis-server", "--version"], text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(r"v=(\S+)", said)
    return found[1] if found else said.strip()


@contextmanager
def redis_server(folder: Path) -> Iterator[tuple[str, int]]:
    """Run a redis-server as it comes, with its files in `folder`; give its URL and the id of its process."""
    folder.mkdir(parents=True, exist_ok=True)
    port = machine.free_port()
    command = ["redis-server", "--port", str(port), "--dir", str(folder)]
    with (folder / "redis.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_for_redis(server, port, folder / "redis.log")
        yield f"redis://127.0.0.1:{port}/0", server.pid
    finally:
        server.terminate()
        try:
            server.wait(REDIS_STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_for_redis(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + REDIS_STARTS_WITHIN_S
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            if connection.recv(16).startswith(b"+PONG"):
                return
        time.sleep(0.01)
    last = log.read_text("utf-8", "replace").splitlines()[-1:]
    raise RuntimeError(f"redis-server did not answer within {REDIS_STARTS_WITHIN_S:g} s; it last said {last}")


def environ_for(python: str) -> dict[str, str]:
    """Return the environment in which a Python's own programs are found and the project can be imported."""
    path = os.pathsep.join([str(Path(python).parent), os.environ.get("PATH", "")])
    return os.environ | {"PATH": path, "PYTHONPATH": str(PROJECT_DIR)}
