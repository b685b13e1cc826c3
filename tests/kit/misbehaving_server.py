"""A server over a raw socket, for what no SMTP server would do on purpose.

def hang_up_at_data(line):
    line.reach("data")      # answers as it should up to DATA, and has heard it; leaving hangs up

with MisbehavingServer(hang_up_at_data) as server: ...
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress

GOOD_ANSWERS = {
    "connect": "220 here",
    "ehlo": "250 hello",
    "mail": "250 2.1.0 ok",
    "rcpt": "250 2.1.5 ok",
    "data": "354 go on",
    "dot": "250 2.0.0 kept",
    "quit": "221 2.0.0 bye",
}
PIPELINING = "250-hello\r\n250 PIPELINING"
"""The answer to EHLO of a server that hears several commands at a stroke."""


class Line:
    """One connection, from the server's side."""

    def __init__(self, sock: socket.socket, stopping: threading.Event) -> None:
        self.sock = sock
        self.stopping = stopping
        self.heard: list[str] = []
        self._unread = b""

    def say(self, text: str) -> None:
        """Send a line."""
        self.send(text.encode() + b"\r\n")

    def send(self, content: bytes) -> None:
        """Send bytes as they are."""
        self.sock.sendall(content)

    def hear(self, end: bytes = b"\r\n") -> str:
        """Return what comes, up to `end`. Raises: ConnectionError when the client has gone."""
        while end not in self._unread:
            content = self.sock.recv(65536)
            if not content:
                raise ConnectionError("the client hung up")
            self._unread += content
        text, _, self._unread = self._unread.partition(end)
        self.heard.append(text.decode("latin-1"))
        return self.heard[-1]

    def reach(self, stage: str, **answers: str) -> None:
        """Behave, save for other answers to some stages, until `stage` has to be answered."""
        for step, answer in GOOD_ANSWERS.items():
            if step == "dot":
                self.hear(b"\r\n.\r\n")
            elif step != "connect":
                self.hear()
            if step == stage:
                return
            self.say(answers.get(step, answer))

    def encrypt(self, context: ssl.SSLContext) -> None:
        """Speak TLS from now on."""
        self.sock = context.wrap_socket(self.sock, server_side=True)

    def wait(self, seconds: float) -> None:
        """Do nothing for a time, or until the server stops."""
        self.stopping.wait(seconds)

    def wait_for_goodbye(self) -> None:
        """Do nothing until the client hangs up."""
        with suppress(OSError):
            while self.sock.recv(65536):
                pass


class MisbehavingServer:
    """Plays a scene for each connection, the last for all that follow."""

    def __init__(self, *scenes: Callable[[Line], None]) -> None:
        self.scenes = scenes
        self.lines: list[Line] = []
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, name="misbehaving-server", daemon=True)]

    def __enter__(self) -> MisbehavingServer:
        self._threads[0].start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for line in self.lines:
            with suppress(OSError):
                line.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def heard(self) -> list[str]:
        """Return all that clients have said."""
        return [text for line in self.lines for text in line.heard]

    def _accept(self) -> None:
        with suppress(OSError):
            while not self._stopping.is_set():
                sock, _ = self._listener.accept()
                line = Line(sock, self._stopping)
                scene = self.scenes[min(len(self.lines), len(self.scenes) - 1)]
                self.lines.append(line)
                thread = threading.Thread(target=self._play, args=(scene, line), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _play(self, scene: Callable[[Line], None], line: Line) -> None:
        try:
            with suppress(OSError):
                scene(line)
        finally:
            line.sock.close()
