"""User and password stay out of what people read."""

from __future__ import annotations

import base64

import pytest

from app.kit.mail.smtp.credentials import Credentials


def test_each_form_is_what_the_protocol_asks_for() -> None:
    credentials = Credentials("cléo", "päss")
    assert base64.b64decode(credentials.plain).decode() == "\0cléo\0päss"
    assert [base64.b64decode(form).decode() for form in credentials.login] == ["cléo", "päss"]


def test_neither_is_shown() -> None:
    assert repr(Credentials("cleo", "secret")) == "Credentials()"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("no such user", "no such user"),
        ("hunter22 is wrong", "*** is wrong"),
        ("xhunter22x is wrong", "x***x is wrong"),
        ("cleo is unknown, Cleopatra is not", "*** is unknown, Cleopatra is not"),
        ("cleopatra", "cleopatra"),
        ("got AGNsZW8AaHVudGVyMjI=", "got ***"),
        ("got AGNsZW8AaHVudG", "got ***"),
        ("got aHVudGVyMjI", "got ***"),
        ("got line/AGNsZW8AaHVudGVyMjI=", "got ***"),
        ("", ""),
    ],
)
def test_words_are_cleaned_of_them(words: str, shown: str) -> None:
    assert Credentials("cleo", "hunter22").hide_in(words) == shown


def test_empty_credentials_hide_nothing() -> None:
    assert Credentials("", "").hide_in("no such user") == "no such user"
