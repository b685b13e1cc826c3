"""Addresses: what SMTP carries of them, and what is refused at the door."""

from __future__ import annotations

import pytest

from app.errors import InvalidInputError, SettingError
from app.mail.addresses import mailbox, parse_sender, wire_address


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
    ("mail_from", "name", "address"),
    [
        ("Postroom <postroom@localhost>", "Postroom", "postroom@localhost"),
        ("post@example.com", "", "post@example.com"),
        ('"Post, Room" <post@example.com>', "Post, Room", "post@example.com"),
        ("Bücher <post@bücher.example>", "Bücher", "post@xn--bcher-kva.example"),
    ],
)
def test_sender_is_split_into_name_and_address(mail_from: str, name: str, address: str) -> None:
    sender = parse_sender(mail_from)
    assert (sender.display_name, sender.addr_spec) == (name, address)


@pytest.mark.parametrize(
    "mail_from",
    ["Postroom", "Postroom <>", "a@b@c", "Post <@example.com>", "Jürgen <jürgen@example.com>",
     "Post\r\nBcc: eve@b.example <post@example.com>", "Post\x85room <post@example.com>", "Post <post@b.example\n>"],
)  # fmt: skip
def test_sender_that_is_no_address_is_refused(mail_from: str) -> None:
    with pytest.raises(SettingError, match="MAIL_FROM is"):
        parse_sender(mail_from)


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
