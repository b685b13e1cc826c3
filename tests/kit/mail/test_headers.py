"""Header lines as they go over the wire: read back byte by byte, and as a mail program would."""

from __future__ import annotations

from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import parseaddr
from typing import Any

import pytest
from hypothesis import given, strategies as st

from app.kit.mail.headers import MAX_LINE, NOT_ONE_LINE, WIRE_POLICY, Named
from tests.kit.wire import assert_legal, header_lines, read

# Letters that end lines, words and quotes, beside all the others.
ANY_TEXT = st.text(
    st.one_of(st.characters(), st.sampled_from('\r\n\t\0\x85\u2028 "\\<>@,;:=?_é😀日')), max_size=200
)


def write(**headers: Any) -> bytes:
    mail = EmailMessage(policy=WIRE_POLICY)
    for name, value in headers.items():
        mail[name.replace("_", "-")] = value
    mail.set_content("text")
    source = mail.as_bytes()
    assert_legal(source)
    return source


@pytest.mark.parametrize("length", [60, 200, 900, MAX_LINE - len("List-Unsubscribe: <>")])
def test_address_to_unsubscribe_stays_in_one_piece(length: int) -> None:
    url = "https://books.test/u/".ljust(length, "x")
    assert f"\r\nList-Unsubscribe: <{url}>\r\n".encode() in b"\r\n" + write(List_Unsubscribe=f"<{url}>")


def test_two_ways_to_unsubscribe_are_parted_after_the_comma() -> None:
    mailto, url = "<mailto:leave@books.test>", f"<https://books.test/u/{'x,y' * 50}>"
    source = write(List_Unsubscribe=f"{mailto}, {url}")
    assert f"List-Unsubscribe: {mailto},\r\n {url}\r\n".encode() in source


@pytest.mark.parametrize(
    "name", ["List-Unsubscribe", "List-Unsubscribe-Post", "X-Of-My-Own", "Auto-Submitted"]
)
@pytest.mark.parametrize(
    "value", ["a\r\nBcc: eve@b.example", "a\nb", "a\rb", "a\0b", "a\x7fb", "a\tb", "é", "a\n"]
)
def test_header_that_is_not_plain_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"control characters|linefeed"):
        write(**{name: value})


def test_header_longer_than_a_line_may_be_is_refused() -> None:
    with pytest.raises(ValueError, match="List-Unsubscribe cannot be written in lines of at most 998"):
        write(List_Unsubscribe="<https://books.test/" + "x" * 998 + ">")


@pytest.mark.parametrize("value", ["a\r\nBcc: eve@b.example", "a\x85b", "a\u2028b", "a\0b", "a\ud800b"])
def test_text_that_could_end_a_line_is_refused(value: str) -> None:
    for headers in (
        {"Subject": value},
        {"From": Named(value, "a@b.example")},
        {"List_Id": Named(value, "a.b")},
    ):
        with pytest.raises(ValueError, match=r"control characters|linefeed"):
            write(**headers)


@pytest.mark.parametrize(
    "address", ["a@b.example>\r\nBcc: <eve@b.example", "a@b.example>", "jürgen@b.example", ""]
)
def test_address_that_is_more_than_one_is_refused(address: str) -> None:
    for name in ("From", "To", "List_Id"):
        with pytest.raises(ValueError, match="an address holds"):
            write(**{name: Named("Name", address)})


@given(ANY_TEXT)
def test_any_subject_reads_the_same_or_is_refused(text: str) -> None:
    text = " ".join(text.split(" "))
    if NOT_ONE_LINE.search(text):
        with pytest.raises(ValueError, match=r"control characters|linefeed"):
            write(Subject=text)
        return
    text = " ".join(text.split())
    source = write(Subject=text)
    assert str(read(source)["Subject"]) == text
    assert [line.partition(b":")[0] for line in header_lines(source)][:2] == [b"Subject", b"Content-Type"]


@given(ANY_TEXT, st.integers(1, 64), st.integers(1, 180))
def test_any_name_of_a_sender_reads_the_same(name: str, local_length: int, domain_length: int) -> None:
    name = " ".join(NOT_ONE_LINE.sub(" ", name).split())
    address = "a" * local_length + "@" + "b" * domain_length + ".example"
    source = write(From=Named(name, address))
    # Read by the older half of the standard library: the newer one puts spaces between encoded words of a name.
    encoded, found = parseaddr(message_from_bytes(source)["From"])
    assert (str(make_header(decode_header(encoded))), found) == (name, address)
    assert address.encode() in source


def test_plain_names_are_not_encoded() -> None:
    assert b"From: From <post@b.example>\r\n" in write(From=Named("From", "post@b.example"))
    assert b"From: Postroom <post@b.example>\r\n" in write(From=Named("Postroom", "post@b.example"))
    assert b'From: "Post, \\"Room\\"" <post@b.example>\r\n' in write(
        From=Named('Post, "Room"', "post@b.example")
    )
    assert b"To: post@b.example\r\n" in write(To=Named("", "post@b.example"))


def test_name_that_looks_encoded_reads_as_it_was_written() -> None:
    source = write(From=Named("=?utf-8?q?Eve?=", "post@b.example"))
    assert read(source)["From"].addresses[0].display_name == "=?utf-8?q?Eve?="


def test_line_is_broken_before_an_address_that_no_longer_fits() -> None:
    name, address = "N" * 50, "p" * 50 + "@b.example"
    assert f"From: {name}\r\n <{address}>\r\n".encode() in write(From=Named(name, address))


def test_list_id_keeps_its_brackets_and_is_never_encoded() -> None:
    assert b"List-Id: <genre-mystery.lists.b.example>\r\n" in write(
        List_Id=Named("", "genre-mystery.lists.b.example")
    )
    source = write(List_Id=Named("Süße Mystery " * 20, "genre-mystery.lists.b.example"))
    assert b" <genre-mystery.lists.b.example>\r\n" in source
    assert str(read(source)["List-Id"]) == ("Süße Mystery " * 20) + "<genre-mystery.lists.b.example>"


def test_header_is_written_once() -> None:
    mail = EmailMessage(policy=WIRE_POLICY)
    mail["To"] = Named("", "cleo@b.example")
    with pytest.raises(ValueError, match="at most 1 To"):
        mail["To"] = Named("", "eve@b.example")
