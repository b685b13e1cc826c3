"""The port the site listens on: had, waited for, or refused with a sentence that names what to change."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from app.kit.errors import CannotListenError
from app.kit.host import listening
from app.kit.host.listening import holder_of, wait_until_free
from tests.kit.site_process import PROJECT_DIR

HAS_IPV6 = (socket.has_ipv6 and Path("/proc/net/if_inet6").exists()) or sys.platform == "darwin"


@pytest.fixture
def taken() -> int:
    """A port that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_taken_port_is_named_and_so_is_who_has_it(taken: int, host: str) -> None:
    with pytest.raises(CannotListenError, match=rf"PORT {taken} is taken") as caught:
        wait_until_free(host, taken, within_s=0)
    if sys.platform == "linux":
        assert f"(process {os.getpid()})" in str(caught.value)


def test_a_port_that_becomes_free_is_waited_for(taken: int) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    threading.Timer(0.2, server.close).start()
    wait_until_free("127.0.0.1", server.getsockname()[1], within_s=10)


@pytest.mark.skipif(not HAS_IPV6, reason="needs IPv6")
def test_a_port_taken_on_ipv6_is_seen(taken: int) -> None:
    wait_until_free("::1", taken)
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server, pytest.raises(CannotListenError):
        wait_until_free("::", server.getsockname()[1], within_s=0)


@pytest.mark.parametrize("host", ["203.0.113.7", "2001:db8::7", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_named(host: str) -> None:
    with pytest.raises(
        CannotListenError, match=f"HOST '{re.escape(host)}' is not an address of this machine"
    ):
        wait_until_free(host, 0)


def test_nobody_has_a_free_port() -> None:
    assert holder_of(1) is None


def test_lsof_is_read_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "p4711\ncControlCe\nf9\np4712\ncother\n"
    monkeypatch.setattr(listening.sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, said))
    assert holder_of(5000) == "the AirPlay Receiver of macOS (process 4711)"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, ""))
    assert holder_of(5000) is None


@pytest.mark.skipif(sys.platform == "win32", reason="needs gunicorn")
def test_the_start_says_in_one_line_that_the_port_is_taken(taken: int, tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "main.py"],
        cwd=PROJECT_DIR,
        env=os.environ | {"PORT": str(taken), "DATA_DIR": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    assert line.startswith(f"Postroom: PORT {taken} is taken by ")
