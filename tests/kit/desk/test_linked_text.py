"""Plain text as HTML: its addresses become links, nothing else of it becomes anything."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given, strategies as st

from app.kit.desk.linked_text import linked

OWN = "https://books.test"


def hrefs(text: str, own_url: str = "") -> list[str]:
    return [html.unescape(found) for found in re.findall('<a href="([^"]*)"', linked(text, own_url))]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("see https://a.test/x.", "https://a.test/x"),
        ("(http://a.test/b)", "http://a.test/b"),
        ("http://a.test/b_(c)", "http://a.test/b_(c)"),
        ("<https://a.test/?q=1&r=2>", "https://a.test/?q=1&r=2"),
        ("HTTPS://A.test/#x!", "HTTPS://A.test/#x"),
        ('"https://a.test"', "https://a.test"),
        ("https://a.test/\x00evil", "https://a.test/"),
    ],
)
def test_an_address_is_a_link_without_the_sentence_around_it(text: str, address: str) -> None:
    assert hrefs(text) == [address]


@pytest.mark.parametrize(
    "text",
    [
        "javascript:alert(1)", "data:text/html,x", "ftp://a.test", "www.a.test", "mailto:a@b.test", "http://",
        "https:///x", "java\nscript:x", "vbscript:http:", "//a.test", "cleo@example.com",
    ],
)  # fmt: skip
def test_nothing_else_is_a_link(text: str) -> None:
    assert hrefs(text) == []


def test_markup_stays_text() -> None:
    shown = linked("<b>https://a.test/<script>\"'&")
    assert "<b>" not in shown
    assert "<script>" not in shown
    assert "&lt;script&gt;&#34;&#39;&amp;" in shown


@pytest.mark.parametrize(
    ("address", "href"),
    [
        (f"{OWN}/confirm/x.y", "/confirm/x.y"),
        (OWN, "/"),
        (f"{OWN}//evil.test", f"{OWN}//evil.test"),
        (f"{OWN}.evil.test/x", f"{OWN}.evil.test/x"),
        (f"{OWN}@evil.test/x", f"{OWN}@evil.test/x"),
        (f"{OWN}:8000/x", f"{OWN}:8000/x"),
        ("https://other.test/x", "https://other.test/x"),
    ],
)
def test_a_link_to_the_site_itself_stays_on_it_and_no_other_does(address: str, href: str) -> None:
    assert hrefs(address, OWN) == [href]


@given(st.text(alphabet="htps:/.<>\"'&()[]a1 \n\\", max_size=60))
def test_what_is_read_is_what_was_written(text: str) -> None:
    shown = str(linked(text, OWN))
    assert html.unescape(re.sub("<[^>]*>", "", shown)) == text
    assert all(tag.startswith("<a href=") or tag == "</a>" for tag in re.findall("<[^>]*>", shown))
    assert all(href.startswith(("http://", "https://")) for href in hrefs(text))
