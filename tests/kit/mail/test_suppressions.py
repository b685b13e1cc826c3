"""Who gets no mail, of one list or at all."""

from __future__ import annotations

import pytest

from app.kit.errors import InvalidInputError
from app.kit.mail import suppressions

pytestmark = pytest.mark.usefixtures("app")


def test_an_address_is_held_back_from_everything_or_from_one_list() -> None:
    suppressions.add("gone@example.com", "no such mailbox")
    suppressions.add("cleo@example.com", "unsubscribed", "genre-mystery")
    assert suppressions.reason_for("gone@example.com") == "no such mailbox"
    assert suppressions.reason_for("gone@example.com", "genre-poetry") == "no such mailbox"
    assert suppressions.reason_for("cleo@example.com", "genre-mystery") == "unsubscribed"
    assert suppressions.reason_for("cleo@example.com", "genre-poetry") is None
    assert suppressions.reason_for("cleo@example.com") is None


def test_addresses_are_the_same_however_they_are_written() -> None:
    suppressions.add("Cleo@BÜCHER.example", "no such mailbox")
    assert suppressions.reason_for("cleo@xn--bcher-kva.example") == "no such mailbox"
    assert suppressions.reason_for("CLEO@xn--bcher-kva.example") == "no such mailbox"


def test_the_first_reason_stays_until_it_is_lifted() -> None:
    suppressions.add("cleo@example.com", "first")
    suppressions.add("cleo@example.com", "second")
    assert [found.reason for found in suppressions.find()] == ["first"]
    assert suppressions.lift("cleo@EXAMPLE.com")
    assert not suppressions.lift("cleo@example.com")
    assert suppressions.find() == []


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(InvalidInputError):
        suppressions.add("cleo", "unsubscribed")
