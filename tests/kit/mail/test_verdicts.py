"""Whose fault a refusal is: every row of the table, by what servers really say."""

from __future__ import annotations

import re

import pytest

from app.kit.mail.replies import (
    IDENTITY,
    LIMITS,
    VERDICTS,
    NotSentError,
    Reply,
    Verdict,
    is_crowded,
    judge,
    line_of,
    read_reply,
)

LANE, SENDER = Verdict.LANE, Verdict.SENDER
LATER, FAILED, SUPPRESSED = Verdict.LATER, Verdict.FAILED, Verdict.SUPPRESSED

# What it is, stage, code, enhanced code, verdict.
# Source: RFC 5321 4.2 and 4.5.3.1.10, RFC 3463, RFC 1870, RFC 4954, RFC 7504, RFC 7505, and what providers document
CASES: list[tuple[str, str, int | None, str, Verdict]] = [
    # 421 at any stage
    ("421 as the greeting", "connect", 421, "4.3.2", LANE),
    ("421 at EHLO", "ehlo", 421, "", LANE),
    ("421 at MAIL: Gmail's rate", "mail", 421, "4.7.0", LANE),
    ("421 at RCPT: Gmail's rate", "rcpt", 421, "4.7.28", LANE),
    ("421 at DATA: idle", "data", 421, "4.4.2", LANE),
    ("421 as the answer to the dot", "dot", 421, "4.3.2", LANE),
    # 432
    ("432: Exchange, too many at once", "rcpt", 432, "4.3.2", LANE),
    ("432 at MAIL", "mail", 432, "4.3.2", LANE),
    # 450
    ("450: mailbox busy", "rcpt", 450, "4.2.1", LATER),
    ("450: greylisted", "rcpt", 450, "4.2.0", LATER),
    ("450: greylisted, as policy", "rcpt", 450, "4.7.1", LATER),
    ("450 without more", "rcpt", 450, "", LATER),
    ("450 at MAIL: the sender", "mail", 450, "4.7.1", LANE),
    # 451
    ("451: greylisted", "rcpt", 451, "4.7.1", LATER),
    ("451: local error", "rcpt", 451, "4.3.0", LATER),
    ("451 at MAIL: local error", "mail", 451, "4.3.0", LANE),
    ("451 after the dot", "dot", 451, "4.3.0", LATER),
    ("451 4.4.2: SES waited too long, at MAIL", "mail", 451, "4.4.2", LANE),
    ("451 4.4.2: SES waited too long, at the dot", "dot", 451, "4.4.2", LANE),
    # 452
    ("452: too many recipients", "rcpt", 452, "4.5.3", LATER),
    ("452: storage", "dot", 452, "4.3.1", LATER),
    ("452: too many messages in this session", "rcpt", 452, "4.4.5", LATER),
    ("452 at MAIL: no room for this size", "mail", 452, "4.3.1", LATER),
    # 454
    ("454: SES, throttled after DATA", "data", 454, "", LANE),
    ("454: SES, the day's quota, at the dot", "dot", 454, "4.7.0", LANE),
    ("454: no TLS at present", "tls", 454, "4.7.0", LANE),
    ("454: no sign-in at present", "auth", 454, "4.7.0", LANE),
    ("550: Gmail, the day's limit", "dot", 550, "5.4.5", LANE),
    # 500 to 504
    ("500: syntax", "rcpt", 500, "5.5.2", FAILED),
    ("501: syntax", "rcpt", 501, "5.5.4", FAILED),
    ("502: unknown command", "data", 502, "5.5.1", FAILED),
    ("503: bad sequence", "data", 503, "5.5.1", FAILED),
    ("504: parameter", "rcpt", 504, "5.5.4", FAILED),
    ("501 at MAIL: the sender", "mail", 501, "5.1.7", LANE),
    ("503 at MAIL: sign in first, say some", "mail", 503, "5.5.1", LANE),
    ("502 to EHLO", "ehlo", 502, "5.5.1", LANE),
    # 521 and 556
    ("521: the host takes no mail", "rcpt", 521, "5.3.2", SUPPRESSED),
    ("521 without more", "rcpt", 521, "", SUPPRESSED),
    ("521 for policy", "rcpt", 521, "5.7.1", FAILED),
    ("521 as the greeting", "connect", 521, "5.3.2", LANE),
    ("521 at MAIL: our relay takes none", "mail", 521, "5.3.2", LANE),
    ("556: the domain takes no mail", "rcpt", 556, "5.1.10", SUPPRESSED),
    ("556 without more", "rcpt", 556, "", SUPPRESSED),
    # 530, 534, 535, 538
    ("530 at MAIL: sign in first", "mail", 530, "5.7.0", LANE),
    ("530 at RCPT", "rcpt", 530, "5.7.1", LANE),
    ("530 at the dot: Microsoft, not signed in", "dot", 530, "5.7.57", LANE),
    ("534: mechanism too weak", "auth", 534, "5.7.9", LANE),
    ("535: wrong password", "auth", 535, "5.7.8", LANE),
    ("535 at MAIL", "mail", 535, "", LANE),
    ("538: encrypt first", "auth", 538, "5.7.11", LANE),
    ("any other answer to AUTH", "auth", 501, "5.5.2", LANE),
    # 550, the recipient's fault
    ("550: no such user", "rcpt", 550, "5.1.1", SUPPRESSED),
    ("550: no such host", "rcpt", 550, "5.1.2", SUPPRESSED),
    ("550: moved", "rcpt", 550, "5.1.6", SUPPRESSED),
    ("550: Exchange, no such user", "rcpt", 550, "5.1.10", SUPPRESSED),
    ("550: mailbox closed", "rcpt", 550, "5.2.1", SUPPRESSED),
    ("550 without more", "rcpt", 550, "", FAILED),
    ("550 5.1.0: says too little", "rcpt", 550, "5.1.0", FAILED),
    ("550 5.1.4: more than one such user", "rcpt", 550, "5.1.4", FAILED),
    ("550 5.1.8 at RCPT: the sender after all", "rcpt", 550, "5.1.8", SENDER),
    ("450 4.1.8 at RCPT: the sender's domain is not found", "rcpt", 450, "4.1.8", LANE),
    ("550 5.7.60: Exchange, not to be sent as", "dot", 550, "5.7.60", SENDER),
    ("554 5.2.252: Exchange, not to be sent as", "dot", 554, "5.2.252", SENDER),
    ("550 5.7.708: Exchange, from there nothing is taken", "dot", 550, "5.7.708", SENDER),
    ("550 5.1.90: Exchange, the day's limit", "dot", 550, "5.1.90", LANE),
    # 550, the sender's fault: never suppresses
    ("550 5.7.1: policy", "rcpt", 550, "5.7.1", FAILED),
    ("550 5.7.25: Gmail, no PTR", "rcpt", 550, "5.7.25", FAILED),
    ("550 5.7.26: Gmail, not authenticated", "dot", 550, "5.7.26", FAILED),
    ("550 5.7.29: Gmail, no TLS", "rcpt", 550, "5.7.29", FAILED),
    ("550 5.7.30: Gmail, no DKIM", "dot", 550, "5.7.30", FAILED),
    ("550 5.7.515: Microsoft, not authenticated", "dot", 550, "5.7.515", FAILED),
    ("550 5.7.1 at MAIL: the sender", "mail", 550, "5.7.1", LANE),
    # 551
    ("551: user not local", "rcpt", 551, "5.1.6", SUPPRESSED),
    ("551 without more", "rcpt", 551, "", FAILED),
    # 552
    ("552: mailbox full", "rcpt", 552, "5.2.2", LATER),
    ("552: mailbox full, found out at the dot", "dot", 552, "5.2.2", LATER),
    ("554: mailbox full, in Exchange's words", "rcpt", 554, "5.2.2", LATER),
    ("552 without more: once, too many recipients", "rcpt", 552, "", LATER),
    ("552: too many recipients", "rcpt", 552, "5.5.3", LATER),
    ("552: too large, at RCPT", "rcpt", 552, "5.3.4", FAILED),
    ("552: too large, at the dot", "dot", 552, "5.3.4", FAILED),
    ("552 at the dot without more: too large", "dot", 552, "", FAILED),
    ("552: too large, at MAIL", "mail", 552, "5.3.4", FAILED),
    ("552 at MAIL without more: too large", "mail", 552, "", FAILED),
    ("552 5.7.0: Gmail, content", "rcpt", 552, "5.7.0", FAILED),
    ("552 at MAIL: the sender's own quota", "mail", 552, "5.2.2", LANE),
    # 553
    ("553: syntax of the mailbox", "rcpt", 553, "5.1.3", FAILED),
    ("553 without more", "rcpt", 553, "", FAILED),
    ("553 at MAIL: sender not allowed", "mail", 553, "5.1.8", LANE),
    ("553 5.6.7 at MAIL: letters beyond ASCII", "mail", 553, "5.6.7", FAILED),
    # 554
    ("554 as the greeting", "connect", 554, "", LANE),
    ("554: transaction failed", "dot", 554, "5.7.1", FAILED),
    ("554: no valid recipients", "data", 554, "5.5.1", FAILED),
    ("554 without more", "dot", 554, "", FAILED),
    ("554: relay denied", "rcpt", 554, "5.7.1", FAILED),
    ("554 5.2.0: Exchange, the day's limit", "dot", 554, "5.2.0", LANE),
    # A code nobody has heard of
    ("499", "rcpt", 499, "", LATER),
    ("599", "rcpt", 599, "", FAILED),
    ("599 at MAIL", "mail", 599, "", LANE),
    # An enhanced code that contradicts the code does not count
    ("550 4.2.2", "rcpt", 550, "4.2.2", FAILED),
    ("450 5.1.1", "rcpt", 450, "5.1.1", LATER),
    ("554 4.4.2", "dot", 554, "4.4.2", FAILED),
    # No code: refused, timed out, hung up, or no SMTP
    ("nobody listens, no such host, no answer", "connect", None, "", LANE),
    ("hung up at EHLO", "ehlo", None, "", LANE),
    ("STARTTLS not offered, bad certificate", "tls", None, "", LANE),
    ("no way to sign in", "auth", None, "", LANE),
    ("hung up at MAIL", "mail", None, "", LANE),
    ("hung up at RCPT", "rcpt", None, "", LANE),
    ("hung up at DATA", "data", None, "", LANE),
    ("250 to DATA", "data", 250, "", LANE),
    ("354 to RCPT", "rcpt", 354, "", LANE),
]


# Where the words alone say whose fault it is: stage, code, enhanced code, words, verdict.
WORDED: list[tuple[str, int, str, str, Verdict]] = [
    ("dot", 550, "5.7.0", "Requested action not taken: too many emails per second", LANE),
    ("rcpt", 450, "4.7.1", "Too many requests, retry later", LANE),
    ("rcpt", 450, "4.7.1", "<client[192.0.2.1]>: Error: too many recipients from 192.0.2.1", LANE),
    ("rcpt", 450, "4.7.1", "Error: too much mail from 192.0.2.1", LANE),
    ("dot", 550, "", "Domain books.example has exceeded the max emails per hour (9/9 (100%)) allowed.", LANE),
    ("rcpt", 550, "", "books.example has exceeded the max defers and failures per hour (5/5 (100%))", LANE),
    ("dot", 550, "5.7.1", "Daily SMTP relay limit exceeded for customer", LANE),
    ("dot", 554, "", "Daily message quota exceeded.", LANE),
    ("dot", 451, "", "You have exceeded your messaging limits", LANE),
    ("dot", 550, "", "You've reached your daily limit for message recipients", LANE),
    ("dot", 454, "4.7.0", "Throttling failure: Maximum sending rate exceeded.", LANE),
    ("rcpt", 450, "4.2.1", "Peak SMTP relay limit exceeded for customer.", LANE),
    ("dot", 550, "5.7.1", "Sending limit reached", LANE),
    ("rcpt", 451, "4.7.651", "The mail server has been temporarily rate limited due to IP reputation", LANE),
    ("dot", 451, "", "Maximum credits exceeded", LANE),
    ("rcpt", 550, "5.4.6", "Unusual sending activity detected. Please try after sometime", LANE),
    (
        "dot",
        554,
        "",
        "Message rejected: Email address is not verified. The following failed: a@b.example",
        SENDER,
    ),
    ("dot", 554, "", "Sending suspended for this account", SENDER),
    ("dot", 554, "", "Sending is paused for the configuration set", SENDER),
    ("rcpt", 502, "5.7.0", "Your SMTP account is not yet activated", SENDER),
    ("dot", 550, "", "While your account is pending approval, all recipients must share its domain.", SENDER),
    (
        "dot",
        550,
        "5.7.1",
        "Domain sandbox1.mailgun.org is not allowed to send: activate your account.",
        SENDER,
    ),
    ("dot", 550, "", "The from address does not match a verified Sender Identity.", SENDER),
    ("rcpt", 550, "", "Unauthenticated senders not allowed", SENDER),
    ("dot", 550, "", "The 'From' address you supplied is not a Sender Signature on your account.", SENDER),
    ("dot", 554, "5.7.1", "Sending from domain books.example is not allowed", SENDER),
    ("rcpt", 554, "5.7.1", "<cleo@example.com>: Relay access denied", SENDER),
    ("rcpt", 550, "5.7.1", "<cleo@example.com>... Relaying denied. Proper authentication required.", SENDER),
    ("dot", 553, "", "Relaying disallowed as post@books.example", SENDER),
    ("rcpt", 550, "", "relay not permitted", SENDER),
    ("rcpt", 550, "5.7.1", "Unable to relay", SENDER),
    ("rcpt", 553, "5.7.1", "<a@b.example>: Sender address rejected: not owned by user c@b.example", SENDER),
    ("rcpt", 550, "", "Sender verify failed", SENDER),
    ("dot", 550, "5.7.1", "Client does not have permissions to send as this sender", SENDER),
    ("dot", 554, "", "SendAsDenied; post@books.example not allowed to send as", SENDER),
    # These name the reader, or the message
    (
        "rcpt",
        450,
        "4.2.1",
        "The user you are trying to contact is receiving mail at a rate that prevents",
        LATER,
    ),
    ("rcpt", 452, "4.5.3", "Too many recipients", LATER),
    ("rcpt", 552, "5.2.2", "Mailbox quota exceeded", LATER),
    ("rcpt", 450, "4.1.1", "Recipient address rejected: unverified address", LATER),
    ("rcpt", 450, "4.7.1", "Relay access denied", LATER),  # a relay that cannot look it up now
    ("rcpt", 550, "5.7.1", "Recipient address rejected: Access denied", FAILED),
    ("rcpt", 550, "5.2.1", "The email account that you tried to reach is disabled", SUPPRESSED),
    ("rcpt", 550, "5.7.1", "You are not allowed to send to this group", FAILED),
    ("dot", 552, "5.3.4", "Message size limit exceeded", FAILED),
    ("dot", 550, "5.7.1", "This message was classified as spam", FAILED),
]
ALL = [(*case[1:4], "", case[4]) for case in CASES] + WORDED


@pytest.mark.parametrize(
    ("stage", "code", "enhanced", "words", "verdict"),
    ALL,
    ids=[case[0] for case in CASES] + [case[3] for case in WORDED],
)
def test_verdict(stage: str, code: int | None, enhanced: str, words: str, verdict: Verdict) -> None:
    reply = Reply(stage, code, enhanced, words)
    assert judge(reply) is verdict
    assert NotSentError(reply).verdict is verdict


@pytest.mark.parametrize("row", range(len(VERDICTS)), ids=[pattern for pattern, _ in VERDICTS])
def test_each_row_of_the_table_decides_some_case(row: int) -> None:
    def first_fit(line: str) -> int:
        return next(number for number, (pattern, _) in enumerate(VERDICTS) if re.fullmatch(pattern, line))

    assert any(first_fit(line_of(Reply(*case[:4]))) == row for case in ALL)


@pytest.mark.parametrize("phrase", [*LIMITS, *IDENTITY])
def test_each_phrase_of_the_table_decides_some_case(phrase: str) -> None:
    wanted = LANE if phrase in LIMITS else SENDER
    assert any(re.search(phrase, case[3].lower()) and case[4] is wanted for case in WORDED)


@pytest.mark.parametrize("stage", ["connect", "ehlo", "tls", "auth", "mail", "rcpt", "data", "dot"])
def test_policy_never_suppresses_and_nothing_outside_rcpt_does(stage: str) -> None:
    for code in (None, *range(200, 600)):
        for detail in ("7.1", "7.26", "7.515", *(["1.1"] if stage != "rcpt" else [])):
            assert judge(Reply(stage, code, f"{str(code)[0]}.{detail}", "")) is not SUPPRESSED


def test_a_verdict_can_be_given_by_who_knows_better() -> None:
    assert NotSentError(Reply("rcpt", 550, "5.1.1", ""), FAILED).verdict is FAILED


@pytest.mark.parametrize(
    ("line", "crowded"),
    [
        (("dot", 432, "4.3.2", "STOREDRV.ClientSubmit; sender thread limit exceeded"), True),
        (("mail", 421, "4.3.2", "Concurrent connections limit exceeded"), True),
        (("connect", 421, "4.7.0", "Error: too many connections from 192.0.2.1"), True),
        (("rcpt", 421, "4.7.0", "slow down"), False),
        (("rcpt", 550, "", "no such reader 432"), False),
    ],
)
def test_a_server_that_has_too_many_at_once_is_understood(
    line: tuple[str, int, str, str], crowded: bool
) -> None:
    assert is_crowded(Reply(*line)) is crowded


# Reading


@pytest.mark.parametrize(
    ("text", "enhanced", "words"),
    [
        ("5.1.1 no such reader", "5.1.1", "no such reader"),
        ("5.1.1 no such\n5.1.1 reader", "5.1.1", "no such reader"),
        ("no such\n5.1.1 reader", "5.1.1", "no such reader"),
        ("5.1.1 no such\n5.7.1 reader", "", "no such reader"),
        ("5.1.1", "5.1.1", ""),
        ("5.1.1.9 no such reader", "", "5.1.1.9 no such reader"),
        ("6.1.1 no such reader", "", "6.1.1 no such reader"),
        ("gone for 5.1.1 good", "", "gone for 5.1.1 good"),
        ("", "", ""),
        ("\x1b[2Jgone\0", "", " [2Jgone "),
    ],
)
def test_enhanced_code_is_read_from_each_line(text: str, enhanced: str, words: str) -> None:
    assert read_reply("rcpt", 550, text) == Reply("rcpt", 550, enhanced, words)


def test_words_are_kept_short() -> None:
    assert len(read_reply("rcpt", 550, "no " * 10_000).words) == 500


@pytest.mark.parametrize(
    ("words", "wish_s"),
    [
        ("4.7.1 Greylisted, please try again in 300 seconds", 300),
        ("Greylisting in action, please come back in 00:04:52", 292),
        ("try again in 5 minutes", 300),
        ("Retry after 30s", 30),
        ("please wait 1 hour and try again", 3600),
        ("Deferred for 90 SECONDS", 90),
        ("try again in 999999999 hours", 24 * 3600),
        ("try again in 99:59:59", 24 * 3600),
        ("try again in 0 seconds", None),
        ("try again later", None),
        ("try again in 5 lightyears", None),
        ("see page 300 seconds", None),
        ("", None),
    ],
)
def test_servers_wish_for_a_later_try_is_heard(words: str, wish_s: float | None) -> None:
    assert read_reply("rcpt", 450, words).retry_after_s == wish_s


def test_a_refusal_for_good_has_no_wish() -> None:
    assert read_reply("rcpt", 550, "try again in 300 seconds").retry_after_s is None
