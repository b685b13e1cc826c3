"""Tokens of links in mails: for one purpose, one subscription, one address, one site; confirming ones age."""

from __future__ import annotations

import string
from dataclasses import dataclass, replace

import pytest
from flask import current_app, has_request_context

from app.bookshop import links as tokens
from app.kit.errors import NotFoundError

pytestmark = pytest.mark.usefixtures("app")

URL_LETTERS = string.ascii_letters + string.digits + "-_"
MAKERS = {"confirm": tokens.confirm_url, "unsubscribe": tokens.unsubscribe_url}
READERS = {"confirm": tokens.read_confirm, "unsubscribe": tokens.read_unsubscribe}


@dataclass(frozen=True)
class Reader:
    id: int
    email: str


CLEO = Reader(7, "cleo@example.com")


def find(number: int) -> Reader:
    if number != CLEO.id:
        raise NotFoundError(f"There is no subscription number {number}.")
    return CLEO


def make(purpose: str, reader: Reader = CLEO) -> str:
    return MAKERS[purpose](reader).rpartition("/")[2]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the signer takes for the time, in unix seconds."""
    now = [1_800_000_000]
    monkeypatch.setattr("itsdangerous.TimestampSigner.get_timestamp", lambda _signer: now[0])
    return now


def change_settings(**changes: object) -> None:
    settings = current_app.extensions["settings"]
    current_app.extensions["settings"] = replace(settings, **changes)


@pytest.mark.parametrize("purpose", MAKERS)
def test_a_link_leads_to_its_page_and_its_token_to_the_subscription(purpose: str) -> None:
    assert MAKERS[purpose](CLEO).startswith(f"http://books.test/{purpose}/7.")
    assert READERS[purpose](make(purpose), find) == CLEO


def test_a_link_is_made_without_a_request_and_is_short() -> None:
    assert not has_request_context()
    assert len(make("unsubscribe")) < 32


@pytest.mark.parametrize("purpose", MAKERS)
def test_a_token_is_written_in_letters_that_no_mail_program_takes_out_of_a_link(purpose: str) -> None:
    for number in range(200):
        token = make(purpose, Reader(number, "cleo@example.com"))
        assert set(token) <= set(URL_LETTERS + ".")
        assert token[-1].isalnum()


@pytest.mark.parametrize("purpose", MAKERS)
@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "7", "7.", "7..", "x.y", "-7.abc", "7.AAAAAAAAAAAAAAAAAAAAAAAAAAA", "\u0667.abc",
     "9" * 5000 + ".abc", "8.abc", "7.é", "7.\x00", "<script>.7"],
)  # fmt: skip
def test_what_is_no_token_is_not_known(purpose: str, token: str) -> None:
    with pytest.raises(NotFoundError, match="not known here"):
        READERS[purpose](token, find)


@pytest.mark.parametrize("purpose", MAKERS)
def test_a_token_of_which_any_letter_is_missing_or_another_is_not_known(purpose: str) -> None:
    token = make(purpose)
    changed = {token[:at] + token[at + 1 :] for at in range(len(token))}
    changed |= {token[:at] for at in range(len(token))}
    # Every other last letter: base64 reads four of them as the same signature.
    changed |= {token[:-1] + letter for letter in URL_LETTERS}
    changed |= {token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :] for at in range(len(token))}
    changed |= {token + "=", token + "A", "0" + token, " " + token}
    for wrong in changed - {token}:
        with pytest.raises(NotFoundError):
            READERS[purpose](wrong, find)


@pytest.mark.parametrize(("made_for", "used_for"), [("confirm", "unsubscribe"), ("unsubscribe", "confirm")])
def test_a_token_is_good_for_one_purpose_only(made_for: str, used_for: str) -> None:
    with pytest.raises(NotFoundError):
        READERS[used_for](make(made_for), find)


@pytest.mark.parametrize("purpose", MAKERS)
def test_a_token_is_worth_nothing_where_its_number_is_somebody_elses(purpose: str) -> None:
    of_another_database = make(purpose, Reader(7, "ada@example.com"))
    with pytest.raises(NotFoundError):
        READERS[purpose](of_another_database, find)


@pytest.mark.parametrize("purpose", MAKERS)
@pytest.mark.parametrize("change", [{"secret_key": "another" * 8}, {"environment": "production"}])
def test_a_token_of_another_site_is_not_known(purpose: str, change: dict[str, str]) -> None:
    token = make(purpose)
    change_settings(**change)
    with pytest.raises(NotFoundError):
        READERS[purpose](token, find)


def test_a_link_to_confirm_is_good_for_its_time_and_no_longer(clock: list[int]) -> None:
    change_settings(confirm_ttl_s=3600)
    token = make("confirm")
    clock[0] += 3600
    assert tokens.read_confirm(token, find) == CLEO
    clock[0] += 1
    with pytest.raises(tokens.LinkExpiredError, match="Subscribe again"):
        tokens.read_confirm(token, find)


def test_a_clock_that_was_set_back_makes_no_link_expire(clock: list[int]) -> None:
    token = make("confirm")
    clock[0] -= 24 * 3600
    assert tokens.read_confirm(token, find) == CLEO


def test_an_expired_token_that_was_changed_is_not_known_rather_than_expired(clock: list[int]) -> None:
    token = make("confirm")
    clock[0] += 10**9
    with pytest.raises(NotFoundError):
        tokens.read_confirm(token[:-1], find)


def test_a_link_to_unsubscribe_is_good_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    token = make("unsubscribe")
    monkeypatch.setattr("time.time", lambda: 10.0**10)
    assert tokens.read_unsubscribe(token, find) == CLEO


def test_whether_a_number_exists_is_not_told() -> None:
    told: list[str] = []
    for token in ("7.AAAA", "8.AAAA"):
        with pytest.raises(NotFoundError) as refused:
            tokens.read_unsubscribe(token, find)
        told.append(str(refused.value))
    assert told[0] == told[1]
