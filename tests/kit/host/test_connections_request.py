"""Where a request ends: in whatever pieces it comes, it is whole at its last byte and not before."""

from __future__ import annotations

import io
import sys

import pytest

if sys.platform == "win32":
    pytest.skip("needs gunicorn, which does not run on Windows", allow_module_level=True)

from gunicorn.config import Config
from gunicorn.http.parser import RequestParser

from app.kit.host.connections_request import MOST_CHUNK_LINE_BYTES, MOST_HEAD_BYTES, RequestEnd

GET = b"GET /up HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
WHOLE = {
    "no body": GET,
    "a body": POST + b"Content-Length: 11\r\n\r\nhello world",
    "another spelling": POST + b"content-length:\t11 \r\n\r\nhello world",
    "a length with zeros": POST + b"Content-Length: %030d\r\n\r\nhello world" % 11,
    "an empty body": POST + b"Content-Length: 0\r\n\r\n",
    "chunks": CHUNKED + b"5\r\nhello\r\n1;a=b\r\n \r\n5\r\nworld\r\n0\r\n\r\n",
    "an end inside a chunk": CHUNKED + b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n",
    "no chunk at all": CHUNKED + b"0\r\n\r\n",
    "a size with zeros": CHUNKED + b"%030x\r\n\r\n\r\n1234567\r\n0\r\n\r\n" % 11,
    "trailers": CHUNKED + b"1\r\nx\r\n0\r\nX-Sum: 7\r\nX-More: 8\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", WHOLE.values(), ids=WHOLE.keys())
@pytest.mark.parametrize("followed_by", [b"", GET])
def test_it_is_whole_at_its_last_byte_and_not_before(request_bytes: bytes, followed_by: bytes) -> None:
    end, data = RequestEnd(100), bytearray()
    for number, byte in enumerate(request_bytes, 1):
        data.append(byte)
        expected = len(request_bytes) if number == len(request_bytes) else None
        assert end.look(data) == expected, number
    assert RequestEnd(100).look(bytearray(request_bytes + followed_by)) == len(request_bytes)
    assert not end.is_hopeless


@pytest.mark.parametrize("request_bytes", WHOLE.values(), ids=WHOLE.keys())
def test_gunicorn_finds_the_same_end(request_bytes: bytes) -> None:
    parser = RequestParser(Config(), iter([request_bytes + b"more"]), ("127.0.0.1", 1))
    body = next(parser).body
    while body.read(1024):
        pass
    assert parser.unreader.take_buffered() == b"more"


HOPELESS = {
    "a line without a carriage return": b"GET / HTTP/1.1\nHost: a\n\n",
    "another after a whole line": b"GET / HTTP/1.1\r\nHost: a\n\n",
    "an endless head": b"GET / HTTP/1.1\r\nX: " + b"x" * MOST_HEAD_BYTES,
    "a long body": POST + b"Content-Length: 101\r\n\r\n",
    "many chunks": CHUNKED + b"64\r\n" + b"x" * 100 + b"\r\n1F5\r\n",
    "a chunk without a size": CHUNKED + b"zz\r\n",
    "a chunk of a negative size": CHUNKED + b"-5\r\n",
    "an endless line": CHUNKED + b"5;" + b"x" * MOST_CHUNK_LINE_BYTES,
    "endless trailers": CHUNKED + b"0\r\n" + b"X: y\r\n" * MOST_CHUNK_LINE_BYTES,
}


@pytest.mark.parametrize("request_bytes", HOPELESS.values(), ids=HOPELESS.keys())
def test_for_what_is_refused_anyway_nobody_waits(request_bytes: bytes) -> None:
    for pieces in ([request_bytes], [request_bytes[:20], request_bytes[20:]]):
        end, data = RequestEnd(100), bytearray()
        for piece in pieces:
            data += piece
            assert end.look(data) is None
        assert end.is_hopeless


def test_a_client_that_asks_whether_to_go_on_is_known() -> None:
    old = POST.replace(b"1.1", b"1.0")  # knows no answer before the answer
    for head, is_asking in (
        (POST + b"Expect: 100-continue\r\n", True),
        (POST + b"X-Expect: 100-continue\r\n", False),
        (old + b"Expect: 100-continue\r\n", False),
    ):
        end = RequestEnd(100)
        assert end.look(bytearray(head + b"Content-Length: 5\r\n\r\n")) is None
        assert end.expects_continue is is_asking


def test_a_long_body_in_small_pieces_is_looked_through_once() -> None:
    class Counting(bytearray):
        looked_at = 0

        def find(self, wanted: bytes, start: int = 0, end: int = 2**62) -> int:  # type: ignore[override]
            Counting.looked_at += min(len(self), end) - start
            return super().find(wanted, start, end)

    data, end, sent = Counting(), RequestEnd(10**6), io.BytesIO(POST + b"X-Long: " + b"x" * 100_000)
    while piece := sent.read(10):
        data += piece
        end.look(data)
    assert Counting.looked_at < 2 * len(data)
