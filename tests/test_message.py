"""What goes over the wire: the bytes are read back as a mail reader would."""

from __future__ import annotations

import re
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, Literal

import pytest
from flask import Flask
from jinja2 import DictLoader

from app.errors import InvalidInputError, SettingError
from app.mail.message import MAX_MESSAGE_BYTES, EmailTemplateError, render

TEMPLATES = {
    "emails/note.txt": "News of {{ title }}\n\nDear reader,\n{{ title }} & more: {{ site_url }}/new\n",
    "emails/fine.txt": "Plain\n\ntext of {{ title }}",
    "emails/fine.html": "<html><head></head><body><p>{{ title }}</p></body></html>",
    "emails/silent.txt": "\n\nno subject",
    "emails/broken.txt": "Subject\n\n{% if %}",
    "emails/footless.txt": "Subject\n\n{% include 'emails/footer.txt' %}",
    "emails/half.txt": "Subject\n\ntext",
    "emails/half.html": "{{ nothing }}",
}


@pytest.fixture(autouse=True)
def templates(app: Flask) -> None:
    app.jinja_env.loader = DictLoader(TEMPLATES)


def read(source: bytes) -> EmailMessage:
    return message_from_bytes(source, policy=policy.default)


def body(source: bytes, kind: Literal["plain", "html"] = "plain") -> str:
    part = read(source).get_body((kind,))
    assert part is not None
    return part.get_content().replace("\r\n", "\n")


def note(title: str = "Nine Stamps and a Lie", to: str = "cleo@example.com", name: str = "note") -> Any:
    return render(name, to, {"title": title})


def test_first_line_is_the_subject_and_the_rest_the_text() -> None:
    message = note("Soup")
    mail = read(message.message)
    assert mail["Subject"] == "News of Soup"
    assert mail["To"] == "cleo@example.com"
    assert body(message.message) == "Dear reader,\nSoup & more: http://books.test/new\n"
    assert mail.get_content_type() == "text/plain"


def test_headers_say_who_when_and_that_a_machine_wrote_it() -> None:
    message = note()
    mail = read(message.message)
    assert mail["From"] == "Postroom <postroom@localhost>"
    assert mail["Date"].datetime.utcoffset().total_seconds() == 0
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"] == message.message_id
    assert re.fullmatch(r"<[0-9a-f-]{36}@localhost>", message.message_id)
    assert note().message_id != message.message_id


def test_html_beside_the_text_becomes_an_alternative() -> None:
    source = note("Soup & <Salt>", name="fine").message
    assert read(source).get_content_type() == "multipart/alternative"
    assert body(source) == "text of Soup & <Salt>\n"
    assert "<p>Soup &amp; &lt;Salt&gt;</p>" in body(source, "html")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("absent", r"app/templates/emails/absent\.txt does not exist. Write it"),
        ("silent", r"app/templates/emails/silent\.txt has an empty first line"),
        ("footless", r"app/templates/emails/footer\.txt does not exist"),
        ("half", r"app/templates/emails/half\.html: 'nothing' is undefined"),
        ("broken", r"app/templates/emails/broken\.txt: Expected an expression"),
    ],
)
def test_template_that_cannot_be_used_is_named(name: str, expected: str) -> None:
    with pytest.raises(EmailTemplateError, match=expected):
        note(name=name)


def test_value_the_template_misses_is_named() -> None:
    with pytest.raises(EmailTemplateError, match=r"note\.txt: 'title' is undefined"):
        render("note", "cleo@example.com")


@pytest.mark.parametrize("line_break", ["\r\n", "\n", "\r", "\x0b", "\x85", "\u2028", "\0"])
def test_line_break_in_a_title_adds_no_header_and_no_body(line_break: str) -> None:
    source = note(f"Soup{line_break}Bcc: eve@example.com{line_break * 2}Buy!").message
    mail = read(source)
    assert mail["Subject"] == "News of Soup Bcc: eve@example.com Buy!"
    assert mail["Bcc"] is None
    assert body(source).startswith("Dear reader,\nSoup")


@pytest.mark.parametrize(
    "title",
    [
        "日本語のタイトル O'Neil tab O'Neil Über é \\back die 日本語のタイトル \\back \"dq\" O'Neil 😀 New",
        '"dq" “Quoted” die 😀 New "dq" ' + "verylongword" * 8 + " New é x@y.z a,b",
        "=?utf-8?q?Bcc=3A_eve=40example=2Ecom?=",
        "long " * 40,
        "x" * 490,
        "😀" * 60,
    ],
)
def test_subject_reads_the_same_at_the_other_end(title: str) -> None:
    message = note(title)
    assert message.subject == f"News of {title.strip()}"
    assert str(read(message.message)["Subject"]) == message.subject
    # Source: RFC 2047 section 2
    assert all(len(word) <= 75 for word in re.findall(rb"=\?utf-8\?[bq]\?[^?]*\?=", message.message))


def test_subject_that_never_ends_is_cut_off() -> None:
    message = note("x" * 3000)
    assert message.subject == "News of " + "x" * 491 + "…"
    assert str(read(message.message)["Subject"]) == message.subject


def test_bytes_are_legal_for_every_server() -> None:
    source = note("Ü\r\n.\r\n\x00" + "x" * 5000 + "\n.\r.\n\ud800", name="fine").message
    assert source.isascii()
    assert b"\0" not in source
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", source)
    assert max(len(line) for line in source.split(b"\r\n")) <= 998


def test_international_domain_goes_out_as_ascii() -> None:
    message = note(to="cleo@bücher.example")
    assert message.to == "cleo@xn--bcher-kva.example"
    assert read(message.message)["To"] == message.to


@pytest.mark.parametrize(
    "address",
    [
        "jürgen@example.com",
        "cleo",
        "cleo@",
        "a@b.example, c@d.example",
        "a@b.example\r\nBcc: c@d.example",
        "",
    ],
)
def test_address_that_no_mail_can_go_to_is_refused(address: str) -> None:
    with pytest.raises(InvalidInputError, match="No mail can go to") as caught:
        note(to=address)
    assert caught.value.field == "to"


def test_mail_that_is_too_large_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="at most 10485760 are sent"):
        note("x" * MAX_MESSAGE_BYTES)


@pytest.mark.parametrize(
    ("mail_from", "expected"),
    [
        ("Bücher, Über & Co <post@bücher.example>", '"Bücher, Über & Co" <post@xn--bcher-kva.example>'),
        ("post@example.com", "post@example.com"),
    ],
)
def test_sender_is_mail_from(app: Flask, mail_from: str, expected: str) -> None:
    app.extensions["settings"] = replace(app.extensions["settings"], mail_from=mail_from)
    assert str(read(note().message)["From"]) == expected


@pytest.mark.parametrize("mail_from", ["Postroom", "Postroom <>", "a@b@c", "Post <@example.com>"])
def test_sender_that_is_no_address_is_refused(app: Flask, mail_from: str) -> None:
    app.extensions["settings"] = replace(app.extensions["settings"], mail_from=mail_from)
    with pytest.raises(SettingError, match="MAIL_FROM is"):
        note()
