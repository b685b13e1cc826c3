"""smtplib's connection with its manners mended: an answer has bounds, and only what was asked for is believed."""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
import time
from collections.abc import Iterable

MAX_REPLY_BYTES = 64 * 1024
MAX_REPLY_LINES = 200
READ_BYTES = 4096
REPLY_LINE = re.compile(rb"([2-5]\d\d)(?:([ -])(.*))?", re.DOTALL)


class SmtpClient(smtplib.SMTP):
    """Speaks SMTP over a socket it is given; errors of the connection come out as they are, as OSError.

    Units: `limit_s`, the time for one block to be sent, and for one whole answer, in seconds. smtplib's own
    limit is one for each read: who sends a byte a minute holds it for ever.
    """

    def __init__(self, name: str) -> None:
        # With no name given smtplib asks the DNS for one, which takes seconds where DNS is broken.
        super().__init__(local_hostname=name)
        self.limit_s = 60.0
        self._unread = b""
        self._unasked = False

    def use(self, sock: socket.socket) -> None:
        """Talk over this socket from now on. What was offered over another is forgotten with the next EHLO."""
        self.sock = sock
        self._unread = b""

    @property
    def secure(self) -> bool:
        """Say whether all that is said is encrypted."""
        return isinstance(self.sock, ssl.SSLSocket)

    def has_spoken(self) -> bool:
        """Say whether the server has said something that nobody asked for, yet.

        Raises: OSError when it has hung up.
        """
        if self._unread:
            return True
        sock = self._require_socket()
        sock.settimeout(0)
        try:
            self._receive(sock)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        return True

    def send(self, s: object) -> None:
        """Send a command or a block of a message. Raises: OSError."""
        sock = self._require_socket()
        sock.settimeout(self.limit_s)
        sock.sendall(s.encode("ascii") if isinstance(s, str) else s)  # type: ignore[arg-type]

    def send_part(self, content: bytes) -> int:
        """Send as much as the system takes at once; return how many bytes those are. Raises: OSError."""
        sock = self._require_socket()
        sock.settimeout(self.limit_s)
        return sock.send(content)

    def putcmd(self, cmd: str, args: str = "") -> None:
        """Send a command, unless the server has spoken out of turn: then that is the answer to read."""
        self._unasked = self.has_spoken()
        if not self._unasked:
            super().putcmd(cmd, args)

    def ask_together(self, lines: Iterable[str]) -> None:
        """Send commands in one block, unless the server has spoken out of turn."""
        self._unasked = self.has_spoken()
        if not self._unasked:
            self.send("".join(f"{line}\r\n" for line in lines))

    def getreply(self) -> tuple[int, bytes]:
        """Read a whole answer: its code, -1 if the protocol does not know it, and its lines without the code.

        Raises: OSError when the server hangs up or takes too long.
        """
        deadline = time.monotonic() + self.limit_s
        lines: list[bytes] = []
        codes: set[bytes] = set()
        left_bytes = MAX_REPLY_BYTES
        while True:
            line = self._read_line(deadline, left_bytes)
            left_bytes -= len(line)
            found = REPLY_LINE.fullmatch(line)
            if found is None or left_bytes <= 0 or len(lines) == MAX_REPLY_LINES:
                return -1, b"\n".join([*lines, line])
            lines.append(found[3] or b"")
            codes.add(found[1])
            if found[2] != b"-":
                break
        words = b"\n".join(lines)
        if len(codes) > 1:
            return -1, b"codes that contradict each other: " + b", ".join(sorted(codes)) + b" " + words
        code = int(codes.pop())
        # A late answer to something else must not pass for the answer to this; 421 is said at any time.
        if self._unasked and code != 421:
            return -1, b"said out of turn: %d %s" % (code, words)
        return code, words

    def _read_line(self, deadline: float, most_bytes: int) -> bytes:
        sock = self._require_socket()
        while b"\n" not in self._unread and len(self._unread) < most_bytes:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            sock.settimeout(left_s)
            self._receive(sock)
        line, _, self._unread = self._unread.partition(b"\n")
        return line.removesuffix(b"\r")

    def _receive(self, sock: socket.socket) -> None:
        content = sock.recv(READ_BYTES)
        if not content:
            raise ConnectionError("the server hung up")
        self._unread += content

    def _require_socket(self) -> socket.socket:
        if self.sock is None:
            raise ConnectionError("the connection is closed")
        return self.sock
