"""Turns a template into the exact bytes of a mail. Rendered once: every try sends the same bytes."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email import policy
from email.errors import MessageError
from email.header import Header
from email.headerregistry import Address, BaseHeader, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from functools import lru_cache
from typing import Any

from email_validator import EmailNotValidError, validate_email
from flask import current_app
from jinja2 import Environment, StrictUndefined, Template, TemplateError, TemplateNotFound

from app.errors import InvalidInputError, PostroomError, SettingError

MAX_MESSAGE_BYTES = 10 * 1024 * 1024
"""Relays refuse larger ones: Gmail takes 25 MiB, many take 10."""

MAX_SUBJECT = 500
"""Characters, the rest is cut off: SMTP ends a line at 998. Source: RFC 5321 4.5.3.1.6"""


class EmailTemplateError(PostroomError):
    """A mail's template is missing, or cannot be rendered with what it was given."""

    code = "bad_email_template"


@dataclass(frozen=True)
class Message:
    """A mail ready to be sent; `to` is the address as it goes over the wire (an ASCII domain)."""

    to: str
    subject: str
    message: bytes
    message_id: str
    template: str


def render(template: str, to: str, context: Mapping[str, Any] | None = None) -> Message:
    """Render app/templates/emails/<template>.txt, and the .html beside it if there is one.

    Every template is offered `site_url`. The first line of the .txt is the subject.
    Raises: EmailTemplateError; InvalidInputError when no mail can go to that address.
    """
    settings = current_app.extensions["settings"]
    values = {"site_url": settings.public_url, **(context or {})}
    recipient, sender = wire_address(to), parse_sender(settings.mail_from)
    subject, text = _render_text(f"emails/{template}.txt", values)
    mail = EmailMessage(policy=_POLICY)
    mail["From"] = sender
    mail["To"] = Address(addr_spec=recipient)
    mail["Subject"] = subject
    mail["Date"] = datetime.now(UTC)
    mail["Message-ID"] = message_id = f"<{uuid.uuid4()}@{sender.domain}>"
    mail["Auto-Submitted"] = "auto-generated"  # holiday replies keep quiet. Source: RFC 3834
    mail.set_content(_clean(text))
    html = _render_html(f"emails/{template}.html", values)
    if html is not None:
        mail.add_alternative(_clean(html), subtype="html")
    source = mail.as_bytes()
    if len(source) > MAX_MESSAGE_BYTES:
        raise InvalidInputError(
            f"the mail {template!r} would be {len(source)} bytes, at most {MAX_MESSAGE_BYTES} are sent: "
            "put a link to what is large"
        )
    return Message(recipient, subject, source, message_id, template)


def wire_address(address: str) -> str:
    """Return an address as SMTP carries it: an international domain becomes ASCII.

    Raises: InvalidInputError.
    """
    try:
        ascii_form = validate_email(address, check_deliverability=False).ascii_email
    except EmailNotValidError as error:
        raise InvalidInputError(f"No mail can go to {address!r}: {error}", "to") from error
    if ascii_form is None:
        raise InvalidInputError(
            f"No mail can go to {address!r}: before the @ only ASCII is allowed, few servers take more.", "to"
        )
    return ascii_form


@lru_cache(maxsize=8)
def parse_sender(mail_from: str) -> Address:
    """Split MAIL_FROM into name and address.

    Raises: SettingError.
    """
    name, bracket, address = mail_from.strip().rpartition("<")
    address = address.removesuffix(">") if bracket else address
    try:
        # The default sender is at localhost, which the validator refuses: it looks at foreign letters only.
        return Address(name.strip(' "'), addr_spec=address if address.isascii() else wire_address(address))
    except (ValueError, IndexError, MessageError, InvalidInputError) as error:
        raise SettingError("MAIL_FROM", mail_from, "Name <address@your-domain.example>") from error


# Headers


class _Subject(UnstructuredHeader, BaseHeader):
    """A subject that reads the same at the other end.

    The standard library's own folding drops spaces between encoded words, and takes "=?utf-8?..." in a
    book's title for its own encoding. Source: github.com/python/cpython/issues/92081
    """

    @classmethod
    def parse(cls, value: str, kwds: dict[str, Any]) -> None:
        kwds["decoded"] = value
        kwds["parse_tree"] = cls.value_parser("")

    def fold(self, *, policy: policy.Policy) -> str:
        is_plain = self.isascii() and "=?" not in self
        header = Header(str(self), "us-ascii" if is_plain else "utf-8", 76, self.name)
        folded = header.encode(linesep=policy.linesep)
        return f"{self.name}: {folded}{policy.linesep}"


_HEADERS = HeaderRegistry()
_HEADERS.map_to_type("subject", _Subject)
# 7bit: bodies are encoded so that any server takes them, not only those that offer 8BITMIME.
_POLICY = policy.SMTP.clone(cte_type="7bit", header_factory=_HEADERS)


# Templates


def _render_text(name: str, values: dict[str, Any]) -> tuple[str, str]:
    templates = _mail_templates(current_app.jinja_env)
    try:
        assert templates.loader is not None
        first, body = _compile(templates, templates.loader.get_source(templates, name)[0])
        subject, text = _one_line(first.render(values)), body.render(values)
    except TemplateNotFound as error:
        raise EmailTemplateError(
            f"app/templates/{error.name} does not exist. Write it: the subject in the first line, an empty "
            "line, then the text."
        ) from error
    except TemplateError as error:
        raise EmailTemplateError(f"app/templates/{name}: {error}") from error
    if not subject:
        raise EmailTemplateError(f"app/templates/{name} has an empty first line: it is the mail's subject.")
    return subject, text


def _render_html(name: str, values: dict[str, Any]) -> str | None:
    templates = _mail_templates(current_app.jinja_env)
    try:
        return templates.get_template(name).render(values)
    except TemplateError as error:
        if isinstance(error, TemplateNotFound) and error.name == name:
            return None
        raise EmailTemplateError(f"app/templates/{name}: {error}") from error


@lru_cache(maxsize=8)
def _mail_templates(pages: Environment) -> Environment:
    """Return the app's environment, but text is not HTML, and a missing value is an error."""
    return pages.overlay(
        autoescape=lambda name: name is not None and name.endswith(".html"), undefined=StrictUndefined
    )


@lru_cache(maxsize=64)
def _compile(templates: Environment, source: str) -> tuple[Template, Template]:
    # The subject is a template of its own: a line break in a value must not move the border to the body.
    first, _, rest = source.partition("\n")
    return templates.from_string(first), templates.from_string(rest.lstrip("\r\n"))


def _one_line(text: str) -> str:
    line = " ".join(_clean(text).split())
    return line if len(line) <= MAX_SUBJECT else line[: MAX_SUBJECT - 1] + "…"


def _clean(text: str) -> str:
    """Turn what no mail may hold (control characters but tab and line break, half characters) into spaces."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]", " ", text)
