"""A local HTTP server that plays Resend's API as it is documented, and misbehaves where it is told to.

with ResendServer() as server:
    server.answer(refusal(429, "rate_limit_exceeded", "Too many requests.", retry_after="2"))
    ...                                     # MAIL_URL=server.url
    assert server.emails[0]["to"] == ["cleo@example.com"]
"""

from __future__ import annotations

import json
import ssl
import threading
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

KEY = "re_Secret_Key_4711"
DRIP_S = 0.02


@dataclass(frozen=True)
class Answer:
    """What the server says to a request; with `accept` it takes the mail before it says so."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    accept: bool = False
    manner: Literal["whole", "cut off", "dribble", "endless", "hang up", "silence"] = "whole"


HANG_UP = Answer(manner="hang up")
ACCEPT_AND_HANG_UP = Answer(accept=True, manner="hang up")
ACCEPT_AND_SAY_NOTHING = Answer(accept=True, manner="silence")
SILENCE = Answer(manner="silence")


def refusal(status: int, name: str, message: str, *, accept: bool = False, **headers: str) -> Answer:
    """Return an error as Resend words it."""
    body = json.dumps({"statusCode": status, "name": name, "message": message}).encode()
    return Answer(status, body, {k.replace("_", "-"): v for k, v in headers.items()}, accept)


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class ResendServer:
    """Listens on a free port of this machine from `start()` to `stop()`; any thread may call its methods."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.emails: list[dict[str, Any]] = []
        """What was sent, in order."""
        self.requests: list[Request] = []
        self.domains = [{"name": "books.example", "status": "verified"}]
        self.key = KEY
        self.key_may_only_send = False
        self.arrived = threading.Event()
        """A request has come, and what it asked for is done."""
        self.stopping = threading.Event()
        self._known: dict[str, tuple[bytes, str]] = {}
        self._answers: deque[Answer] = deque()
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.daemon_threads = True
        self._http.resend = self  # type: ignore[attr-defined]
        if tls is not None:  # each handshake in the thread of its connection, at the first read
            self._http.socket = tls.wrap_socket(self._http.socket, True, do_handshake_on_connect=False)
        self._host = "localhost" if tls else "127.0.0.1"
        self.port: int = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        """Return the MAIL_URL that leads here."""
        return f"resend://{KEY}@{self._host}:{self.port}"

    def __enter__(self) -> ResendServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(10)

    def answer(self, answer: Answer, times: int = 1) -> None:
        """Give this answer to the next `times` requests."""
        self._answers.extend([answer] * times)

    # In the server's threads

    def play(self, request: Request) -> Answer:
        """Return what a request is answered with; send its mail, or not."""
        with self._lock:
            answer = self._play(request)
            self.requests.append(request)
            self.arrived.set()
            return answer

    def _play(self, request: Request) -> Answer:
        scripted = self._answers.popleft() if self._answers else None
        if scripted is not None and not scripted.accept:
            return scripted
        usual = self._refused(request) or self._taken(request)
        if scripted is None:
            return usual
        assert usual.status == 200, usual
        return scripted if scripted.body else replace(scripted, body=usual.body)

    def _refused(self, request: Request) -> Answer | None:
        if "user-agent" not in request.headers:
            return Answer(403, b"error code: 1010")
        bearer = request.headers.get("authorization", "")
        if not bearer:
            return refusal(401, "missing_api_key", "Missing API key in the authorization header.")
        if bearer != f"Bearer {self.key}":
            return refusal(403, "invalid_api_key", "API key is invalid.")
        if request.path == "/domains" and self.key_may_only_send:
            return refusal(401, "restricted_api_key", "This API key is restricted to only send emails.")
        return None

    def _taken(self, request: Request) -> Answer:
        if (request.method, request.path) == ("GET", "/domains"):
            return _as_json({"object": "list", "has_more": False, "data": self.domains})
        if (request.method, request.path) != ("POST", "/emails"):
            return refusal(404, "not_found", "The requested endpoint does not exist.")
        content = json.loads(request.body)
        for name in ("from", "to", "subject"):
            if not content.get(name):
                return refusal(422, "missing_required_field", f"Missing `{name}` field.")
        key = request.headers.get("idempotency-key", "")
        if not 1 <= len(key) <= 256:
            return refusal(400, "invalid_idempotency_key", "The key must be between 1-256 chars.")
        body, email_id = self._known.setdefault(key, (request.body, str(uuid.uuid4())))
        if body != request.body:
            return refusal(
                409,
                "invalid_idempotent_request",
                "Same idempotency key used with a different request payload.",
            )
        if email_id not in {email["id"] for email in self.emails}:
            self.emails.append({"id": email_id, **content})
        return _as_json({"id": email_id})


def _as_json(content: object) -> Answer:
    return Answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        server: ResendServer = self.server.resend  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = server.play(Request(self.command, self.path, headers, body))
        self.close_connection = True
        if answer.manner == "silence":
            server.stopping.wait(30)
        if answer.manner in ("silence", "hang up"):
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        left_out = 10 if answer.manner == "cut off" else 0
        if answer.manner != "endless":
            self.send_header("Content-Length", str(len(answer.body) + left_out))
        self.end_headers()
        with suppress(OSError):  # a client that has had enough
            for piece in self._pieces(answer):
                self.wfile.write(piece)
                if answer.manner == "dribble" and server.stopping.wait(DRIP_S):
                    return

    do_GET = do_POST = _answer  # noqa: N815

    def _pieces(self, answer: Answer) -> Iterator[bytes]:
        while answer.manner == "endless":
            yield answer.body
        size = 1 if answer.manner == "dribble" else 64 * 1024
        for start in range(0, len(answer.body), size):
            yield answer.body[start : start + size]

    def handle(self) -> None:
        with suppress(ssl.SSLError):  # a client that does not trust us
            super().handle()

    def log_message(self, *_values: object) -> None:
        """Say nothing."""
