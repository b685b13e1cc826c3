"""Where a request ends, found in its bytes as they arrive; what they say is for gunicorn's parser to judge."""

from __future__ import annotations

import re

MOST_HEAD_BYTES = 1_000_000
"""More than gunicorn takes for a head: it is to say itself that this one is too long."""
MOST_CHUNK_LINE_BYTES = 4096
BYTES_A_CHUNKED_BYTE = 6
"""What a byte of a body takes where each is a chunk of its own."""
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*0*(\d{1,18})[ \t]*\r\n", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r\n]*chunked", re.IGNORECASE)
EXPECTS_CONTINUE = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*\r\n", re.IGNORECASE)
CHUNK_SIZE = re.compile(rb"0*([0-9A-Fa-f]{1,15})")
BARE_LF = re.compile(rb"(?<!\r)\n")
"""gunicorn ends no line with it, and refuses it."""


class RequestEnd:
    """Looks for the end of one request; each look goes on where the last one stopped."""

    def __init__(self, most_body_bytes: int) -> None:
        self.has_head = False
        self.expects_continue = False
        """The client sends its body only once it is told to go on."""
        self.is_hopeless = False
        """It is too long or not in the format: there is no need to wait for the rest."""
        self._most_body_bytes = most_body_bytes
        self._body_at = 0
        self._looked_to = 0
        """Where the next look begins, or the end if that is known."""
        self._is_chunked = False

    def look(self, data: bytearray) -> int | None:
        """Return how many bytes the request has, or None while some are missing (or it is hopeless)."""
        if not self.has_head and not self._find_head(data):
            return None
        end = self._end_of_chunks(data) if self._is_chunked else self._looked_to
        most_bytes = self._most_body_bytes * (BYTES_A_CHUNKED_BYTE if self._is_chunked else 1)
        self.is_hopeless |= (end or max(len(data), self._looked_to)) - self._body_at > most_bytes
        return None if self.is_hopeless or end is None or end > len(data) else end

    def _find_head(self, data: bytearray) -> bool:
        found = data.find(b"\r\n\r\n", max(0, self._looked_to - 3))
        if found < 0:
            is_odd = BARE_LF.search(data, self._looked_to) is not None
            self.is_hopeless = is_odd or len(data) > MOST_HEAD_BYTES
            self._looked_to = len(data)
            return False
        head = bytes(data[: found + 4])
        self.has_head = True
        self._looked_to = self._body_at = found + 4
        self.expects_continue = b" HTTP/1.1\r\n" in head and EXPECTS_CONTINUE.search(head) is not None
        self._is_chunked = CHUNKED.search(head) is not None
        length = CONTENT_LENGTH.search(head)
        if length is not None and not self._is_chunked:
            self._looked_to += int(length[1])
        return True

    def _end_of_chunks(self, data: bytearray) -> int | None:
        while self._looked_to < len(data):
            line_end = data.find(b"\r\n", self._looked_to, self._looked_to + MOST_CHUNK_LINE_BYTES)
            size = CHUNK_SIZE.match(data, self._looked_to)
            if line_end < 0 or size is None:
                is_endless = len(data) - self._looked_to >= MOST_CHUNK_LINE_BYTES
                self.is_hopeless |= size is None or is_endless
                return None
            if int(size[1], 16) == 0:  # the last one; an empty line ends what may follow it
                found = data.find(b"\r\n\r\n", line_end, line_end + MOST_CHUNK_LINE_BYTES)
                self.is_hopeless |= found < 0 and len(data) - line_end >= MOST_CHUNK_LINE_BYTES
                return None if found < 0 else found + 4
            self._looked_to = line_end + 2 + int(size[1], 16) + 2
        return None
