"""Mail to many: one template, and what it is told about each reader alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.kit.errors import InvalidInputError
from app.kit.mail import ledger
from app.kit.mail.message import MailingList, Message, render
from app.kit.mail.templates import EmailValueError, refuse_unused

MAX_LETTERS = 1000
"""Mails of one transaction: while it writes them, everybody else who wants to write waits."""

Unmade = InvalidInputError | EmailValueError
"""Why one letter of many cannot be made."""


@dataclass(frozen=True)
class Letter:
    """One recipient of a mail to many, with what the template is told about them alone."""

    to: str
    dedup_key: str
    context: Mapping[str, Any] = field(default_factory=dict)
    mailing_list: MailingList | None = None


def make(
    template: str, letters: Sequence[Letter], context: Mapping[str, Any]
) -> list[tuple[Letter, Message | Unmade]]:
    """Render each letter that has not been written down already; one that cannot be made comes with the reason.

    Raises: EmailTemplateError, also if not one of several can be made; InvalidInputError for more than MAX_LETTERS.
    """
    if len(letters) > MAX_LETTERS:
        raise InvalidInputError(f"{len(letters)} letters at once, at most {MAX_LETTERS}: send them in parts.")
    known = ledger.known_keys(letter.dedup_key for letter in letters)
    pairs = [
        (letter, _render(template, letter, context)) for letter in letters if letter.dedup_key not in known
    ]
    unmade = [message for _, message in pairs if isinstance(message, EmailValueError)]
    if len(unmade) == len(pairs) > 1:
        raise unmade[
            0
        ]  # it is not the letters: nothing is written down, so that it can be put right and sent
    return pairs


def _render(template: str, letter: Letter, context: Mapping[str, Any]) -> Message | Unmade:
    try:
        refuse_unused(template, letter.context)
        return render(
            template,
            letter.to,
            {**context, **letter.context},
            mailing_list=letter.mailing_list,
            message_key=letter.dedup_key,
        )
    except (InvalidInputError, EmailValueError) as error:
        return error
