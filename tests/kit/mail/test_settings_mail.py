"""MAIL_FROM, MAIL_URL and PUBLIC_URL: what the start takes can be sent by, and what cannot stops the start."""

from __future__ import annotations

from dataclasses import replace
from email import message_from_bytes, policy

import pytest
from flask import Flask

from app.kit.errors import SettingError
from app.kit.mail.message import MailingList, render, with_sender
from app.kit.mail.smtp.conversation import ADDRESS
from app.kit.mail.transports import transport_for
from app.kit.settings_mail import MailUrl, parse_mail_url, parse_sender
from app.settings import Settings
from tests.kit.emails_rig import NOTE


@pytest.mark.parametrize(
    ("mail_from", "name", "address"),
    [
        ("Postroom <postroom@localhost>", "Postroom", "postroom@localhost"),
        ("Postroom <post@mail.internal>", "Postroom", "post@mail.internal"),
        ("post@example.com", "", "post@example.com"),
        (" <post@example.com> ", "", "post@example.com"),
        ("post@example.com <post@example.com>", "post@example.com", "post@example.com"),
        ('"Post, Room" <post@example.com>', "Post, Room", "post@example.com"),
        ("Post, Room <post@example.com>", "Post, Room", "post@example.com"),
        ('The "Best" <post@example.com>', 'The "Best"', "post@example.com"),
        ("Bücher <post@bücher.example>", "Bücher", "post@xn--bcher-kva.example"),
    ],
)
def test_a_sender_the_start_takes_can_send(app: Flask, mail_from: str, name: str, address: str) -> None:
    sender = parse_sender(Settings.read({"MAIL_FROM": mail_from}).mail_from)
    assert (sender.display_name, sender.addr_spec) == (name, address)
    assert ADDRESS.fullmatch(sender.addr_spec)
    app.extensions["settings"] = replace(app.extensions["settings"], mail_from=mail_from)
    app.jinja_env.loader = NOTE
    mail = message_from_bytes(
        render("note", "cleo@example.com", {"name": "", "shop": ""}).message, policy=policy.SMTP
    )
    assert mail["From"].addresses == (sender,)


@pytest.mark.parametrize(
    "mail_from",
    ["Postroom", "Postroom <>", "a@b@c", "Post <@example.com>", "Jürgen <jürgen@example.com>",
     "Post\r\nBcc: eve@b.example <post@example.com>", "Post\x85room <post@example.com>", "Post <post@b.example\n>",
     '"Postroom <post@example.com>"', "'post@example.com'", "Postroom <post@exa mple.com>", "a@b.com, c@d.com",
     "post@example.com Postroom", "Postroom <post@example.com>;", "Postroom <post@example.com.>",
     "post@example.com <Postroom>", "A <a@b.com>, C <c@d.com>", "a@b.com, C <c@d.com>", "post@example.com>",
     "Post <post@-example.com>", "Post <po st@example.com>", "Post <post@example..com>",
     f"Post <p@{'a' * 64}.com>"],
)  # fmt: skip
def test_a_sender_that_cannot_send_is_refused_at_the_start_and_by_sending(mail_from: str) -> None:
    for read in (parse_sender, lambda text: Settings.read({"MAIL_FROM": text})):
        with pytest.raises(SettingError, match="MAIL_FROM is"):
            read(mail_from)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://mail.example.com", MailUrl("smtp", "mail.example.com")),
        ("SMTPS://cleo:@mail.example.com:465", MailUrl("smtps", "mail.example.com", 465, "cleo", "")),
        ("smtp+plain://[::1]:2525", MailUrl("smtp+plain", "::1", 2525)),
        ("smtp://cl%40o:p%C3%A4:%2F@h", MailUrl("smtp", "h", None, "cl@o", "pä:/")),
        ("smtp://cleo:p@ss%w@h", MailUrl("smtp", "h", None, "cleo", "p@ss%w")),
        ("resend://re_AbC", MailUrl("resend", "api.resend.com", None, "", "re_AbC")),
        ("resend://re_AbC%2B@127.0.0.1:8080", MailUrl("resend", "127.0.0.1", 8080, "", "re_AbC+")),
    ],
)
def test_a_mail_url_the_start_takes_makes_a_transport(url: str, expected: MailUrl) -> None:
    settings = Settings.read({"MAIL_URL": url})
    assert parse_mail_url(settings.mail_url) == expected
    transport_for(settings).close()


@pytest.mark.parametrize(
    "url",
    ["smtp://h:0", "smtp://h:99999", "smtp://exa mple", "smtp://hunter2@h", "smtp://:hunter2@h", "smtp://@h",
     "smtp://u:hunter2%00@h", "smtp://u:hunter2%FF@h", "smtp://u:hunter2@exa..mple", "smtp://u:hunter2@-h",
     "smtp://u:hunter2@", "smtp+plain://u:hunter2@h", "resend://", "resend://@h", "resend://hunter2%0A",
     "resend://hunter2%20x", "resend://hunter2@h:http", "resend://hunter2@h/x", "smtp://[::1"],
)  # fmt: skip
def test_a_mail_url_that_makes_no_transport_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(SettingError, match="MAIL_URL is") as refused:
        Settings.read({"MAIL_URL": url})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://books.example.com/", "https://books.example.com"),
        ("HTTPS://Books.example.com", "https://books.example.com"),
        ("http://[::1]:5000", "http://[::1]:5000"),
        ("https://example.com/~cleo/books/", "https://example.com/~cleo/books"),
        ("https://bücher.example/bücher", "https://xn--bcher-kva.example/b%C3%BCcher"),
        ("https://books.example.com/" + "a" * 400, "https://books.example.com/" + "a" * 400),
    ],
)
def test_a_public_url_the_start_takes_can_be_in_a_mail(app: Flask, url: str, expected: str) -> None:
    settings = Settings.read({"PUBLIC_URL": url})
    assert settings.public_url == expected
    app.extensions["settings"] = replace(app.extensions["settings"], public_url=settings.public_url)
    app.jinja_env.loader = NOTE
    books = MailingList("books", "Books", f"{settings.public_url}/unsubscribe/{'x' * 100}")
    mail = render("note", "cleo@example.com", {"name": "", "shop": ""}, mailing_list=books).message
    assert f"<{expected}/unsubscribe/".encode() in mail


@pytest.mark.parametrize(
    "url",
    ["https://h?shop", "https://h#shop", "https://h/?a=1", "https://h/a b", "https://exa mple", "https://h:abc",
     "https://h:0", "https://h:99999", "https://u:p@h", "https://h//x", "https://h\\x", "https://",
     "https://h/%zz", "https://h\u200b", "https://exa..mple", "https://[::1", "h", "ftp://h",
     "https://h/" + "a" * 500],
)  # fmt: skip
def test_a_public_url_that_makes_no_links_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(SettingError, match="PUBLIC_URL is"):
        Settings.read({"PUBLIC_URL": url})


@pytest.mark.usefixtures("app")
def test_a_mail_that_waits_goes_out_from_the_sender_of_today(app: Flask) -> None:
    app.extensions["settings"] = replace(
        app.extensions["settings"], mail_from="Bücher" * 20 + " <old@b.example>"
    )
    app.jinja_env.loader = NOTE
    old = render("note", "cleo@example.com", {"name": "Cleo", "shop": "\nFrom: here"}).message
    new = with_sender(old, "Böok Shop <new@b.example>")
    parsed = message_from_bytes(new, policy=policy.SMTP)
    assert parsed.get_all("From") == ["Böok Shop <new@b.example>"]
    lines = [line for line in old.split(b"\r\n") if line in new.split(b"\r\n")]
    assert b"From: here" in lines
    assert len(new.split(b"\r\n")) - len(lines) == 1
    assert with_sender(new, "Böok Shop <new@b.example>") == new
