"""Turns a template into the exact bytes of a mail. Rendered once: every try sends the same bytes."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from functools import lru_cache
from typing import Any

from flask import current_app
from werkzeug.urls import iri_to_uri

from app.kit.errors import InvalidInputError
from app.kit.mail.addresses import Addresses, wire_address, wire_addresses
from app.kit.mail.attachments import Source, attach
from app.kit.mail.headers import MAX_LINE, WIRE_POLICY, Named
from app.kit.mail.templates import header_line, render_html, render_text
from app.kit.settings_mail import parse_sender

MAX_MESSAGE_BYTES = 10 * 1024 * 1024
"""Relays refuse larger ones: Gmail takes 25 MiB, many take 10."""

MAX_COPIED_BYTES = 3 * MAX_MESSAGE_BYTES
"""All copies of one mail together: they are written in one transaction, and kept."""

MAX_TITLE = 200
"""Characters of a mailing list's title, the rest is cut off."""


@dataclass(frozen=True)
class Message:
    """A mail ready to be sent; `to` is the address it goes to, as it goes over the wire (an ASCII domain)."""

    to: str
    subject: str
    message: bytes
    message_id: str
    template: str
    list_name: str = ""
    copies_to: tuple[str, ...] = ()

    def copies(self) -> list[Message]:
        """Return the same mail for each address of cc and bcc: all name the same readers, but have an id each."""
        return [self._for(address) for address in self.copies_to]

    def _for(self, address: str) -> Message:
        left, _, domain = self.message_id.partition("@")
        message_id = f"<{_hashed(f'{left} {address}')}@{domain}"
        old, new = (f"Message-ID: {an_id}\r\n".encode() for an_id in (self.message_id, message_id))
        return replace(
            self, to=address, message_id=message_id, message=self.message.replace(old, new, 1), copies_to=()
        )


@dataclass(frozen=True)
class MailingList:
    """What a reader subscribed to: its name in ASCII, its title for people, and how to leave it.

    Raises: InvalidInputError for a name or an address that no header can hold.
    """

    name: str
    title: str
    unsubscribe_url: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+([.-][a-z0-9]+)*", self.name) or len(self.name) > 100:
            raise InvalidInputError(
                f"The mailing list is named {self.name[:100]!r}, expected a-z, 0-9 and single hyphens, such as "
                "genre-mystery.",
                "name",
            )
        url = self.unsubscribe_url
        try:
            usable = url.isprintable() and " " not in url
            url = iri_to_uri(url) if usable else url
        except ValueError:
            usable = False
        if not usable or not re.fullmatch(r"https?://[!-;=?-~]+", url) or len(url) > MAX_LINE - 20:
            raise InvalidInputError(
                # Not all of it: who knows the address may use it.
                f"The mailing list's unsubscribe_url is {url[:20]!r}... ({len(url)} characters), expected "
                f"https://... of at most {MAX_LINE - 20} characters without spaces.",
                "unsubscribe_url",
            )
        object.__setattr__(self, "unsubscribe_url", url)


def render(
    template: str,
    to: str,
    context: Mapping[str, Any] | None = None,
    *,
    cc: Addresses = (),
    bcc: Addresses = (),
    reply_to: Addresses = (),
    mailing_list: MailingList | None = None,
    attachments: Sequence[Source] = (),
    message_key: str | None = None,
) -> Message:
    """Render app/templates/emails/<template>.txt, and the .html beside it if there is one.

    Every template is offered `site_url`, and that of a mailing list `unsubscribe_url`. The first line of the
    .txt is the subject. A mail of the same `message_key` has the same Message-ID.
    Raises: EmailTemplateError; InvalidInputError when no mail can go to that address, or a file cannot.
    """
    settings = current_app.extensions["settings"]
    values = {"site_url": settings.public_url, **(context or {})}
    if mailing_list is not None:
        values["unsubscribe_url"] = mailing_list.unsubscribe_url
    recipient, sender = wire_address(to), parse_sender(settings.mail_from)
    shown, hidden = wire_addresses(cc, "cc"), wire_addresses(bcc, "bcc")
    copies_to = _others(recipient, [*shown, *hidden], mailing_list)
    subject, text = render_text(f"emails/{template}.txt", values)
    mail = EmailMessage(policy=WIRE_POLICY)
    mail["From"] = Named(sender.display_name, sender.addr_spec)
    mail["To"] = Named("", recipient)
    for name, addresses in (("Cc", shown), ("Reply-To", wire_addresses(reply_to, "reply_to"))):
        if addresses:
            mail[name] = ", ".join(addresses)
    mail["Subject"] = subject
    mail["Date"] = datetime.now(UTC)
    mail["Message-ID"] = message_id = _message_id(message_key, sender)
    mail["Auto-Submitted"] = "auto-generated"  # holiday replies keep quiet. Source: RFC 3834
    if mailing_list is not None:
        _address_to_list(mail, mailing_list, sender)
    mail.set_content(text)
    html = render_html(f"emails/{template}.html", values)
    if html is not None:
        mail.add_alternative(html, subtype="html")
    attach(mail, attachments, MAX_MESSAGE_BYTES)
    source = mail.as_bytes()
    copied_bytes = len(source) * (1 + len(copies_to))
    if len(source) > MAX_MESSAGE_BYTES or copied_bytes > MAX_COPIED_BYTES:
        most = f"{MAX_MESSAGE_BYTES} are sent" + (
            f", {MAX_COPIED_BYTES} with all copies" if copies_to else ""
        )
        raise InvalidInputError(
            f"the mail {template!r} would be {len(source)} bytes, {copied_bytes} with its copies, at most {most}: "
            "put a link to what is large"
        )
    list_name = mailing_list.name if mailing_list else ""
    return Message(recipient, subject, source, message_id, template, list_name, copies_to)


def _others(recipient: str, addresses: list[str], mailing_list: MailingList | None) -> tuple[str, ...]:
    """Return who gets a copy: each address once.

    Raises: InvalidInputError for a mailing list's mail.
    """
    others = {address.lower(): address for address in addresses}
    others.pop(recipient.lower(), None)
    if others and mailing_list is not None:
        raise InvalidInputError(
            "A mail of a mailing list has no cc or bcc: whoever has it could unsubscribe its reader.", "cc"
        )
    return tuple(others.values())


def _message_id(key: str | None, sender: Address) -> str:
    # Another process that makes the same mail makes the same id: a mail program may then show it once.
    return f"<{_hashed(key) if key is not None else uuid.uuid4()}@{sender.domain}>"


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _address_to_list(mail: EmailMessage, mailing_list: MailingList, sender: Address) -> None:
    """Name the list and the way out of it. Source: RFC 2919, RFC 8058"""
    mail["List-Id"] = Named(
        header_line(mailing_list.title, MAX_TITLE), f"{mailing_list.name}.lists.{sender.domain}"
    )
    mail["List-Unsubscribe"] = f"<{mailing_list.unsubscribe_url}>"
    mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"


def with_sender(source: bytes, mail_from: str) -> bytes:
    """Return a mail with this sender: what was written before MAIL_FROM was put right would be refused for ever."""
    head, gap, body = source.partition(b"\r\n\r\n")
    line = _from_line(mail_from)
    new = re.sub(rb"(?mi)^From:.*\r\n([ \t].*\r\n)*", lambda _: line, head + b"\r\n", count=1)
    return new.removesuffix(b"\r\n") + gap + body


@lru_cache(maxsize=8)
def _from_line(mail_from: str) -> bytes:
    sender, mail = parse_sender(mail_from), EmailMessage(policy=WIRE_POLICY)
    mail["From"] = Named(sender.display_name, sender.addr_spec)
    return mail.as_bytes().removesuffix(b"\r\n")
