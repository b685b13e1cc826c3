"""The real server against clients that send too much, too slowly, in odd spellings, or ten thousand times."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kit.site_process import SITE_UNDER_TEST, Site

pytestmark = pytest.mark.slow

TOKEN = "the operator's own token"
TEN_MB = 10_000_000
HEAD = b"POST /api/books HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "data", WEB_THREADS="4", ADMIN_TOKEN=TOKEN) as site:
        yield site


def connect(site: Site) -> socket.socket:
    return socket.create_connection(("127.0.0.1", site.port), timeout=60)


def converse(site: Site, *pieces: bytes) -> bytes:
    """Send all pieces, as simple clients do, and only then read until the answer is there."""
    with connect(site) as client:
        for piece in pieces:
            client.sendall(piece)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    return answer


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


# Too much


@pytest.mark.parametrize("address", ["/api/books", "/books", "/nowhere", "/unsubscribe/x", "/sign-in"])
def test_who_sends_ten_megabytes_hears_that_it_is_too_much(site: Site, address: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
    for _ in range(3):  # and the connection goes on
        connection.request("POST", address, b"x" * TEN_MB, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 413
        if address.startswith("/api/"):
            assert json.loads(body)["error"]["code"] == "request_entity_too_large"
    connection.request("GET", "/up")
    assert connection.getresponse().status == 200
    connection.close()


def test_who_sends_ten_megabytes_in_pieces_hears_it_too(site: Site) -> None:
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    answer = converse(site, HEAD, b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 160, b"0\r\n\r\n")
    assert status_of(answer) == 413


def test_a_body_that_breaks_off_or_is_not_in_the_format_does_nothing(site: Site) -> None:
    book = b'{"title": "A Parrot", "author": "Cleo Finch", "genre": "Mystery"}'
    assert status_of(converse(site, HEAD, b"Content-Length: 500\r\n\r\n", book)) == 408
    assert status_of(converse(site, HEAD, b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n")) == 400
    assert site.get("/api/books?q=parrot")[1] == {"books": []}
    assert "Traceback" not in "".join(site.log)


# Too slowly


SLOW = {
    "silent": b"",
    "half a line": b"GET / HT",
    "half a head": b"GET / HTTP/1.1\r\nHost: localhost\r\n",
    "half a body": HEAD + b"Content-Length: 1000\r\n\r\n{",
    "half a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    "reads nothing": b"GET /static/kit/site.css HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2000,
    "hangs up late": b"GET /up HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
}
HELD, LOOKS = 24, 20


class SlowClients(threading.Thread):
    """Keeps connections of one kind open, and opens another for each that the site closes."""

    def __init__(self, site: Site, beginning: bytes) -> None:
        super().__init__(daemon=True)
        self.site, self.beginning, self.may_end = site, beginning, threading.Event()
        self.clients = [self.open() for _ in range(HELD)]

    def open(self) -> socket.socket:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.connect(("127.0.0.1", self.site.port))
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            client.send(self.beginning)
        return client

    def run(self) -> None:
        while not self.may_end.wait(0.05):
            for number, client in enumerate(self.clients):
                with contextlib.suppress(BlockingIOError):
                    if self.beginning != SLOW["reads nothing"] and client.recv(4096) == b"":
                        client.close()
                        self.clients[number] = self.open()

    def __enter__(self) -> SlowClients:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.may_end.set()
        self.join()
        for client in self.clients:
            client.close()


@pytest.mark.parametrize("beginning", SLOW.values(), ids=SLOW.keys())
def test_clients_that_hold_on_delay_nobody(site: Site, beginning: bytes) -> None:
    with SlowClients(site, beginning):  # there are four threads
        waits_s = sorted(wait_for_page(site) for _ in range(LOOKS))
    print(f"median {waits_s[LOOKS // 2]:.3f} s, longest {waits_s[-1]:.3f} s")
    assert waits_s[LOOKS // 2] < 0.5, waits_s


def wait_for_page(site: Site) -> float:
    """Look at a page as somebody who comes anew; return how long that took."""
    time.sleep(0.1)
    began = time.monotonic()
    assert site.get("/api/books", timeout_s=20)[0] == 200
    return time.monotonic() - began


def test_long_polls_and_slow_clients_together_leave_threads_for_pages(tmp_path: Path) -> None:
    environ = {"WEB_THREADS": "4", "NOTES": str(tmp_path / "notes"), "RATELIMIT_ENABLED": "0"}
    with Site(tmp_path / "data", SITE_UNDER_TEST, **environ) as site:
        job = site.post("/api/test/slow", {"seconds": 20, "marker": "long"})[1]["id"]
        poll = f"GET /api/jobs/{job}?wait=20 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        with SlowClients(site, poll), SlowClients(site, SLOW["half a body"]):
            waits_s = sorted(wait_for_page(site) for _ in range(LOOKS))
    assert waits_s[LOOKS // 2] < 0.5, waits_s


def test_a_thousand_idle_connections_leave_files_for_the_site(tmp_path: Path) -> None:
    few_files = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128));" \
        " os.execv(sys.argv[1], sys.argv[1:])"  # fmt: skip
    with Site(tmp_path / "data", [sys.executable, "-c", few_files, sys.executable, "main.py"]) as site:
        before = site.get("/api/queue", as_operator=True)[1]["instances"]
        with ExitStack() as stack:
            for _ in range(1000):
                stack.enter_context(connect(site))
            assert site.get("/api/books", timeout_s=20)[0] == 200
            assert site.get("/api/queue", as_operator=True)[1]["instances"] == before
    assert "Traceback" not in "".join(site.log)


# In odd spellings


@pytest.mark.parametrize(
    "path",
    [
        "//desk", "///desk", "/api/../desk", "/%2e%2e/desk", "/static/../../desk", "/static/..%2f..%2fmain.py",
        "/static/%2e%2e/%2e%2e/main.py", "//evil.example/%2e%2e", "/\\evil.example", "http://evil.example/desk",
        "/desk%20", "/desk%0d%0aX-Evil:%201", "/desk?x=\\", "//metrics", "//api/emails",
    ],
)  # fmt: skip
def test_no_spelling_leads_round_the_door_or_to_another_site(site: Site, path: str) -> None:
    answer = converse(site, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    assert status_of(answer) in (303, 308, 400, 401, 404)
    location = headers.get("Location", "/").removeprefix("http://localhost/")
    assert "evil" not in location.partition("?")[0]
    assert not location.startswith(("//", "/\\"))
    assert "X-Evil" not in headers
    assert b"throughput" not in body.lower()
    assert b"import" not in body


# Ten thousand times


def test_nobody_moves_the_site_below_another_path(site: Site) -> None:
    for header in (b"SCRIPT_NAME: /shop", b"SCRIPT_NAME: //evil.example", b"PATH_INFO: /desk"):
        answer = converse(
            site, b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + header + b"\r\n\r\n"
        )
        assert status_of(answer) == 200
        assert b'href="/sign-in"' in answer


def test_ten_thousand_subscriptions_from_one_client_are_twenty_mails(site: Site) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
    answers: Counter[int] = Counter()
    started = time.monotonic()
    for number in range(10_000):
        body = json.dumps({"email": f"reader{number}@example.com", "genre": "Mystery"})
        forged = {"Content-Type": "application/json", "X-Forwarded-For": f"198.51.100.{number % 250}"}
        connection.request("POST", "/api/subscriptions", body, forged)
        answer = connection.getresponse()
        answer.read()
        answers[answer.status] += 1
    took_s = time.monotonic() - started
    connection.close()
    counts = site.get("/api/emails", as_operator=True)[1]["counts"]
    mails = sum(counts.values())
    print(f"10 000 subscriptions from one client in {took_s:.0f} s: {dict(answers)}, {mails} mails")
    assert answers == {201: 20, 429: 9_980}
    assert mails == 20
    assert len(site.log) < 50, "and the log is not full of it"


# The log


def test_neither_the_log_nor_the_banner_holds_a_token_that_was_chosen(tmp_path: Path) -> None:
    with Site(tmp_path / "data", ADMIN_TOKEN=TOKEN, GUNICORN_CMD_ARGS="--access-logfile /dev/stderr") as site:
        for path in (f"/sign-in?token={TOKEN.replace(' ', '%20')}", "/sign-in?token=wrong-wrong", "/desk"):
            site.get(path)
        log = "".join(site.log)
    assert "/sign-in with your ADMIN_TOKEN" in log
    assert log.count('"GET /sign-in HTTP/1.1" 303') == 2
    assert TOKEN not in log
    assert TOKEN.replace(" ", "%20") not in log


def test_a_token_that_was_made_is_in_the_link_of_the_banner_and_works(tmp_path: Path) -> None:
    with Site(tmp_path / "data", ADMIN_TOKEN="") as site:
        (line,) = [line for line in site.log if "/sign-in?token=" in line]
        path = line.split(f"http://localhost:{site.port}", 1)[1].strip()
        answer = converse(
            site, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
    assert b"\r\nLocation: /desk\r\n" in answer
    assert b"\r\nSet-Cookie: postroom=" in answer
