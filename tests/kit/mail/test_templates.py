"""Mail templates: CSS that mail programs understand, and the kit's own mails as a reader gets them."""

from __future__ import annotations

import html as html_codec
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings as hypothesis_settings, strategies as st
from jinja2 import DictLoader

from app.kit.mail.message import MailingList, render
from app.kit.mail.templates import MAX_STYLED_TAGS, EmailTemplateError, header_line
from tests.kit.wire import assert_legal, read

LIST = MailingList("genre-mystery", "Mystery at the bookshop", "https://books.test/unsubscribe/" + "t" * 150)
PAGE = "<html><head><style>{}</style></head><body>{}</body></html>"


@dataclass(frozen=True)
class Book:
    genre: str = "Mystery"
    title: str = "Nine Stamps & a Lie"
    author: str = "Tobias Wren"


def body(source: bytes, kind: Literal["plain", "html"]) -> str:
    part = read(source).get_body((kind,))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


def html_of(app: Flask, page: str, **context: object) -> str:
    app.jinja_env.loader = DictLoader({"emails/note.txt": "Note\n\ntext", "emails/note.html": page})
    return body(render("note", "cleo@example.com", context).message, "html")


def test_rules_go_to_the_tags_they_mean(app: Flask) -> None:
    page = PAGE.format(
        "p { color: red } .big { font-size: 20px }", '<p class="big">a</p><p style="color: blue">b</p>'
    )
    html = html_of(app, page)
    assert re.search(r'<p class="big" style="color: ?red;\s*font-size: ?20px;?">a</p>', html)
    assert re.search(r'<p style="color: ?blue;?">b</p>', html)
    assert "<style" not in html


def test_rules_that_no_tag_can_hold_stay(app: Flask) -> None:
    html = html_of(
        app, PAGE.format("p { color: red } @media (max-width: 520px) { p { color: blue } }", "<p>a</p>")
    )
    assert re.search(r"<style>\s*@media \(max-width: 520px\) { p { color: blue } }\s*</style>", html)
    assert re.search(r'<p style="color: ?red;?">a</p>', html)


def test_states_and_hacks_that_no_tag_can_hold_stay(app: Flask) -> None:
    html = html_of(
        app, PAGE.format("a { color: red } a:hover { color: blue } #outlook a { padding: 0 }", "<a>b</a>")
    )
    assert "a:hover { color: blue; }" in html
    assert "#outlook a { padding: 0; }" in html
    assert re.search(r'<a style="color: ?red;?">b</a>', html)


@pytest.mark.parametrize(
    ("attributes", "is_for_all"),
    [
        ('media="print"', False),
        ("media='(max-width: 600px)' type=text/css", False),
        ("type=text/css MEDIA = print", False),
        ('media="screen and (max-width: 600px)"', False),
        ('media="print, screen"', True),
        ('media="ALL"', True),
        ('media=""', True),
        ('data-media="print"', True),
    ],
)
def test_sheet_for_paper_or_phones_is_not_for_all(app: Flask, attributes: str, is_for_all: bool) -> None:
    page = f"<html><head><style {attributes}>p {{ display: none }}</style><style>b {{ color: red }}</style></head>"
    html = html_of(app, page + "<body><p>a</p><b>c</b></body></html>")
    assert ("<p>a</p>" in html) is not is_for_all
    assert ("p { display: none }" in html) is not is_for_all
    assert re.search(r'<b style="color: ?red;?">c</b>', html)


def test_parts_that_outlook_leaves_out_are_still_left_out(app: Flask) -> None:
    note = "<!--[if mso]><i>b</i><![endif]-->"
    html = html_of(app, PAGE.format("p {}", f"{note}<![if !mso]><p>a</p><![endif]>"))
    assert note in html
    assert "<!--[if !mso]><!--><p>a</p><!--<![endif]-->" in html


def test_html_without_style_is_left_as_it_was_written(app: Flask) -> None:
    assert html_of(app, "<p>a<BR>b &copy; {{ x }}", x="<") == "<p>a<BR>b &copy; &lt;\n"


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (PAGE.format("p { color: red", "<p>"), r"its <style> has 1 '{' and 0 '}', expected as many of each"),
        (PAGE.format("p color: red }", "<p>"), r"its <style> has 0 '{' and 1 '}'"),
        (PAGE.format('p { content: "}" } /* { */ p {', "<p>"), r"its <style> has 2 '{' and 1 '}'"),
        ("<style>p { color: red }<p>Hello</p>", r"1 <style> and 0 </style>: what follows"),
        (
            PAGE.format("p {}", "<p>a</p>" * MAX_STYLED_TAGS),
            rf"tags, at most {MAX_STYLED_TAGS} can be styled",
        ),
        (
            PAGE.format("p {}", "<b>" * 200_000),
            r"200004 tags, at most",
        ),  # nested so deep it would end the process
    ],
)
def test_style_that_cannot_be_used_is_named(app: Flask, page: str, expected: str) -> None:
    with pytest.raises(EmailTemplateError, match=r"app/templates/emails/note\.html: .*" + expected):
        html_of(app, page)


def test_nothing_is_fetched_or_opened(app: Flask, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.css"
    sheet.write_text("p { color: green }")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        for address in (f"http://127.0.0.1:{server.getsockname()[1]}/a.css", f"file://{sheet}", str(sheet)):
            head = f'<link rel="stylesheet" href="{address}"><style>@import "{address}"; b {{ color: red }}</style>'
            html = html_of(app, f"<html><head>{head}</head><body><p>a</p></body></html>")
            assert "<p>a</p>" in html
            assert "green" not in html
        with pytest.raises(BlockingIOError):
            server.accept()


# The standard library reads a lone \r as a line break of its own, HTML as one like any other.
@given(st.text(st.one_of(st.characters(), st.sampled_from('\r\n\t\0\x85\u2028 <>&"=.😀')), max_size=300))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text_reads_the_same_in_subject_text_and_html(app: Flask, text: str) -> None:
    app.jinja_env.loader = DictLoader({
        "emails/note.txt": "News: {{ text }}\n\n{{ text }}",
        "emails/note.html": PAGE.format("b { color: red }", "<b>{{ text }}</b>"),
    })  # fmt: skip
    message = render("note", "cleo@example.com", {"text": text}, mailing_list=LIST)
    assert_legal(message.message)
    assert str(read(message.message)["Subject"]) == message.subject == header_line(f"News: {text}", 500)
    clean = re.sub(r"\r\n?", "\n", re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]", " ", text))
    assert body(message.message, "plain") == clean.removesuffix("\n") + "\n"
    found = re.search(r'<b style="color: ?red;?">(.*)</b>', body(message.message, "html"), re.DOTALL)
    assert found is not None
    assert html_codec.unescape(found[1]) == clean


@pytest.mark.usefixtures("app")
def test_alert_is_styled_and_can_be_unsubscribed_from_in_text_and_html() -> None:
    message = render("book_alert", "cleo@example.com", {"book": Book()}, mailing_list=LIST)
    assert f"\n{LIST.unsubscribe_url}\n" in body(message.message, "plain")
    html = body(message.message, "html")
    assert f'<a href="{LIST.unsubscribe_url}" style="' in html
    assert re.search(
        r'<strong class="title" style="font-size: ?20px;?">Nine Stamps &amp; a Lie</strong>', html
    )
    assert b"style=3D" in message.message  # on the wire, where "=" is written so
    assert "@media" in html
    assert_legal(message.message)


@pytest.mark.usefixtures("app")
def test_alert_without_a_way_out_is_not_made() -> None:
    with pytest.raises(EmailTemplateError, match="'unsubscribe_url' is undefined"):
        render("book_alert", "cleo@example.com", {"book": Book()})


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize(("days", "expected"), [(1, "works for 1 day."), (7, "works for 7 days.")])
def test_confirmation_holds_one_link_and_says_what_it_is_for(days: int, expected: str) -> None:
    url = "https://books.test/confirm/" + "t" * 200
    context = {"genres": ["Mystery", "Poésie & Co"], "confirm_url": url, "days": days}
    message = render("confirm_subscription", "cleo@example.com", context)
    assert message.subject == "Please confirm: news of Mystery, Poésie & Co"
    text, html = body(message.message, "plain"), body(message.message, "html")
    assert re.findall(r"https?://\S+|www\.\S+", text) == [url]
    assert re.findall(r'(?:href|src)="([^"]*)"', html) == [url]
    for said in (text, html_codec.unescape(html)):
        assert expected in said
        assert "If it was not you, do nothing" in said
        assert "Poésie & Co" in said
    assert 'style="display: inline-block' in html
    assert_legal(message.message)
