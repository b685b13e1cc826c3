"""What goes over the wire: the bytes are read back as a mail reader would."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from flask import Flask
from jinja2 import DictLoader

from app.kit.errors import InvalidInputError, SettingError
from app.kit.mail.message import MAX_COPIED_BYTES, MAX_MESSAGE_BYTES, MailingList, render
from app.kit.mail.templates import EmailTemplateError
from tests.kit.wire import assert_legal, header_lines, read

TEMPLATES = {
    "emails/note.txt": "News of {{ title }}\n\nDear reader,\n{{ title }} & more: {{ site_url }}/new\n",
    "emails/fine.txt": "Plain\n\ntext of {{ title }}",
    "emails/fine.html": "<html><head></head><body><p>{{ title }}</p></body></html>",
    "emails/silent.txt": "\n\nno subject",
    "emails/broken.txt": "Subject\n\n{% if %}",
    "emails/footless.txt": "Subject\n\n{% include 'emails/footer.txt' %}",
    "emails/news.txt": "News\n\nLeave: {{ unsubscribe_url }}",
    "emails/bare.txt": "{{ subject }}\n\ntext",
    "emails/half.txt": "Subject\n\ntext",
    "emails/half.html": "{{ nothing }}",
}


@pytest.fixture(autouse=True)
def templates(app: Flask) -> None:
    app.jinja_env.loader = DictLoader(TEMPLATES)


def body(source: bytes, kind: Literal["plain", "html"] = "plain") -> str:
    part = read(source).get_body((kind,))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


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
        "x" * 62 + " and more",
        "😀" * 60,
    ],
)
def test_subject_reads_the_same_at_the_other_end(title: str) -> None:
    message = note(title)
    assert message.subject == f"News of {title.strip()}"
    assert str(read(message.message)["Subject"]) == message.subject
    # Source: RFC 2047 section 2
    assert all(len(word) <= 75 for word in re.findall(rb"=\?utf-8\?[bq]\?[^?]*\?=", message.message))


@pytest.mark.parametrize("length", range(60, 80))
def test_first_word_of_a_subject_stands_in_its_first_line(length: int) -> None:
    for subject in ("x" * length, "x" * length + " y", "a " + "x" * length):
        source = render("bare", "cleo@example.com", {"subject": subject}).message
        assert re.search(rb"\r\nSubject: \S", source)
        assert str(read(source)["Subject"]) == subject
        assert max(len(line) for line in source.split(b"\r\n")) <= 76


def test_subject_that_never_ends_is_cut_off() -> None:
    message = note("x" * 3000)
    assert message.subject == "News of " + "x" * 491 + "…"
    assert str(read(message.message)["Subject"]) == message.subject


def test_bytes_are_legal_for_every_server() -> None:
    assert_legal(note("Ü\r\n.\r\n\x00" + "x" * 5000 + "\n.\r.\n\ud800", name="fine").message)


def test_long_lines_are_broken_as_short_as_mail_programs_expect() -> None:
    source = note("é" + "x" * 500 + " " * 200).message
    assert max(len(line) for line in source.split(b"\r\n")) <= 76  # Source: RFC 2045 6.7


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
        "a" + " " * 1_000_000 + "@b.example",
        "a" * 60 + "@" + "b" * 60 + ".c" * 70,
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


# Which mail it is


def test_mails_of_one_key_have_one_message_id() -> None:
    first, again = (
        render("note", "cleo@example.com", {"title": "a"}, message_key="book:1") for _ in range(2)
    )
    other = render("note", "cleo@example.com", {"title": "a"}, message_key="book:2")
    assert first.message_id == again.message_id == "<c6181c204204233b34a66672e703cac9@localhost>"
    assert first.message_id != other.message_id
    assert f"Message-ID: {first.message_id}".encode() in header_lines(first.message)


def test_message_id_stays_whole_under_a_long_domain(app: Flask) -> None:
    domain = "a" * 60 + "." + "b" * 60 + ".example"
    app.extensions["settings"] = replace(app.extensions["settings"], mail_from=f"post@{domain}")
    message = render("note", "cleo@example.com", {"title": "a"}, message_key="book:1")
    assert message.message_id.endswith(f"@{domain}>")
    assert read(message.message)["Message-ID"] == message.message_id


# Mailing lists


def news(url: str = "https://books.test/u/1", title: str = "Mystery", name: str = "genre-mystery") -> Any:
    return render("news", "cleo@example.com", mailing_list=MailingList(name, title, url))


@pytest.mark.parametrize("length", [60, 200, 900])
def test_mail_of_a_list_says_how_to_leave_it(length: int) -> None:
    url = "https://books.test/u/".ljust(length, "x")
    message = news(url)
    lines = header_lines(message.message)
    assert f"\r\nList-Unsubscribe: <{url}>\r\n".encode() in message.message
    assert b"List-Unsubscribe-Post: List-Unsubscribe=One-Click" in lines
    assert b"List-Id: Mystery <genre-mystery.lists.localhost>" in lines
    assert body(message.message) == f"Leave: {url}\n"
    assert message.list_name == "genre-mystery"
    assert_legal(message.message)


def test_mail_of_no_list_names_none() -> None:
    message = note()
    assert message.list_name == ""
    assert not [line for line in header_lines(message.message) if line.startswith(b"List-")]


def test_international_address_to_unsubscribe_goes_out_as_ascii() -> None:
    message = news("https://bücher.example/raus/ä?x=1")
    assert b"List-Unsubscribe: <https://xn--bcher-kva.example/raus/%C3%A4?x=1>" in header_lines(
        message.message
    )
    assert body(message.message) == "Leave: https://xn--bcher-kva.example/raus/%C3%A4?x=1\n"


def test_title_of_a_list_adds_no_header() -> None:
    mail = read(news(title="Mystery\r\nBcc: eve@example.com <x.y>").message)
    assert str(mail["List-Id"]) == '"Mystery Bcc: eve@example.com <x.y>" <genre-mystery.lists.localhost>'
    assert mail["Bcc"] is None


@pytest.mark.parametrize(
    "url",
    ["", "books.test/u", "javascript:alert(1)", "https://books.test/u\r\nBcc: eve@example.com", "https://b.test/u\n",
     "https://b.test/a b", "https://b.test/>, <https://eve.test/", "https://b.test/\t",
     "https://b.test/" + "x" * 999, "https://\ud800.test/"],
)  # fmt: skip
def test_address_to_unsubscribe_that_no_header_holds_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match=r"unsubscribe_url is .* expected https://") as caught:
        news(url)
    assert caught.value.field == "unsubscribe_url"
    assert "eve" not in str(caught.value)  # its end is the reader's own, and nobody else's


@pytest.mark.parametrize("name", ["", "Genre", "genre mystery", "a..b", "-a", "a\n", "é", "a@b", "x" * 101])
def test_list_that_no_header_can_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match="expected a-z, 0-9 and single hyphens"):
        news(name=name)


# Attached files


def test_mail_that_is_too_large_with_its_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(
        b"x" * (MAX_MESSAGE_BYTES * 57 // 78)
    )  # as base64 the limit, to the line
    with pytest.raises(InvalidInputError, match="at most 10485760 are sent"):
        render("note", "cleo@example.com", {"title": "a"}, attachments=[tmp_path / "large"])
    (tmp_path / "large").write_bytes(b"x" * (MAX_MESSAGE_BYTES * 57 // 78 - 2000))
    message = render("note", "cleo@example.com", {"title": "a"}, attachments=[tmp_path / "large"])
    assert MAX_MESSAGE_BYTES - 3000 < len(message.message) <= MAX_MESSAGE_BYTES


# Copies


def test_copies_name_the_same_readers_and_hide_the_hidden() -> None:
    message = render(
        "note",
        "cleo@example.com",
        {"title": "a"},
        cc=["boss@bücher.example", "Boss@bücher.example", "cleo@example.com"],
        bcc="archive@example.com",
        reply_to=["help@example.com", "desk@example.com"],
        message_key="book:1",
    )
    copies = message.copies()
    assert [copy.to for copy in copies] == ["Boss@xn--bcher-kva.example", "archive@example.com"]
    for copy in (message, *copies):
        mail = read(copy.message)
        assert mail["To"] == "cleo@example.com"
        assert mail["Cc"] == "Boss@xn--bcher-kva.example, cleo@example.com"
        assert mail["Reply-To"] == "help@example.com, desk@example.com"
        assert b"archive" not in copy.message
        assert mail["Message-ID"] == copy.message_id
        assert_legal(copy.message)
    assert len({copy.message_id for copy in (message, *copies)}) == 3
    assert note().copies() == []
    assert read(note().message)["Cc"] is None


@pytest.mark.parametrize("field", ["cc", "bcc", "reply_to"])
@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ("cleo", "No mail can go to 'cleo'"),
        ("a@b.example, c@d.example", "No mail can go to"),
        (["a@b.example\r\nX: y"], "No mail can go to"),
        ([f"reader{number}@example.com" for number in range(21)], "has 21 addresses, at most 20"),
        ([None], "No mail can go to a NoneType"),
    ],
)
def test_copy_that_cannot_be_addressed_is_refused_by_name(field: str, addresses: Any, expected: str) -> None:
    with pytest.raises(InvalidInputError, match=expected) as caught:
        render("note", "cleo@example.com", {"title": "a"}, **{field: addresses})
    assert caught.value.field == field


def test_mail_of_a_list_has_no_copies() -> None:
    mailing_list = MailingList("genre-mystery", "Mystery", "https://books.test/u/1")
    with pytest.raises(InvalidInputError, match="could unsubscribe its reader"):
        render("news", "cleo@example.com", mailing_list=mailing_list, bcc="boss@example.com")


def test_copies_are_bounded_together(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * (MAX_COPIED_BYTES // 6))
    many = [f"reader{number}@example.com" for number in range(6)]
    with pytest.raises(InvalidInputError, match="with its copies, at most"):
        render("note", "cleo@example.com", {"title": "a"}, attachments=[tmp_path / "large"], cc=many)
