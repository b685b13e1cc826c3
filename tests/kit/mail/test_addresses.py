"""Addresses: what SMTP carries of them, and what is refused at the door."""

from __future__ import annotations

import pytest

from app.kit.errors import InvalidInputError
from app.kit.mail.addresses import mailbox, wire_address


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("cleo@example.com", "cleo@example.com"),
        ("Cleo.O'Neil+books@Example.COM", "Cleo.O'Neil+books@example.com"),
        ("cleo@bücher.example", "cleo@xn--bcher-kva.example"),
        ("cleo@例え.jp", "cleo@xn--r8jz45g.jp"),
    ],
)
def test_address_goes_over_the_wire_in_ascii(address: str, expected: str) -> None:
    assert wire_address(address) == expected
    assert wire_address(expected) == expected


@pytest.mark.parametrize(
    "address",
    ["jürgen@example.com", "cleo", "a@b@c.example", "a@b.example, c@d.example", "a@b.example\r\nBcc: c@d.example",
     "Cleo <cleo@b.example>", "cleo@b.example\0", "cleo@b.example\n", "a" * 250 + "@b.example", ""],
)  # fmt: skip
def test_address_that_no_mail_can_go_to_is_refused_with_its_field(address: str) -> None:
    with pytest.raises(InvalidInputError, match="No mail can go to") as caught:
        wire_address(address, "email")
    assert caught.value.field == "email"


def test_letters_few_servers_take_are_named_as_the_reason() -> None:
    with pytest.raises(InvalidInputError, match="before the @ only ASCII is allowed") as caught:
        wire_address("jürgen@example.com")
    assert caught.value.field == "to"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("Cleo+books@Example.com", "cleo@example.com"),
        ("cleo+a+b@example.com", "cleo@example.com"),
        ("+a@example.com", "+a@example.com"),
        ("cleo@a+b.example", "cleo@a+b.example"),
        ("cleo", "@cleo"),
        ("", "@"),
    ],
)
def test_spellings_of_one_mailbox_count_as_one(address: str, expected: str) -> None:
    assert mailbox(address) == expected
