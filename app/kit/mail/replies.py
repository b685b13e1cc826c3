"""What a mail server answered, whose fault it is, and the errors that carry it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from app.kit.errors import PostroomError

MAX_WORDS = 500
MAX_RETRY_AFTER_S = 24 * 3600.0
"""However long a server asks us to wait."""
BEFORE_MAIL = ("connect", "ehlo", "tls", "auth")
"""Stages at which a server knows nothing of the mail yet: it dislikes us, or one connection more."""
ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+|$)")
WISH = re.compile(
    r"\b(?:again|retry|back|wait|deferred|delayed|greylisted)\b\D{0,40}?"
    r"(?:(?P<clock>\d{1,3}:\d\d:\d\d)|(?P<amount>\d{1,9})\s*(?P<unit>s|secs?|seconds?|m|mins?|minutes?|h|hours?))\b",
    re.IGNORECASE,
)
UNIT_S = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Reply:
    """What the server said at a stage; `code` is None when it said nothing that the protocol knows.

    The stages: connect, ehlo, tls, auth, mail, rcpt, data, dot.
    Units: `retry_after_s`, the server's own wish, in seconds.
    """

    stage: str
    code: int | None
    enhanced: str
    words: str
    retry_after_s: float | None = None

    def __str__(self) -> str:
        said = " ".join(part for part in (str(self.code or ""), self.enhanced, self.words) if part)
        return f"at {self.stage}: {said}"


class Verdict(StrEnum):
    """What follows from a try that did not end in a yes."""

    LANE = "lane"  # not the mail's fault: the lane pauses, no attempt is burnt
    SENDER = "sender"  # the same, of the sender or the account; unless the server takes other mail of theirs
    LATER = "later"  # tried again by the schedule
    FAILED = "failed"
    SUPPRESSED = "suppressed"  # failed, and nothing more goes to that address
    UNKNOWN = "unknown"  # it may have been sent


class MailError(PostroomError):
    """A mail did not go out, or may not have; `reply` tells the stage, the code and the server's words."""

    code = "mail_error"
    status = 502
    text = ""
    is_logged = True
    pause_s = 0.0
    """For how long all mail waits after it. Units: seconds."""

    def __init__(self, reply: Reply, verdict: Verdict) -> None:
        self.reply = reply
        self.verdict = verdict
        super().__init__(f"{self.text} {reply}")


class NotSentError(MailError):
    """The server did not take the mail."""

    code = "mail_not_sent"
    text = "The server did not take the mail"

    def __init__(self, reply: Reply, verdict: Verdict | None = None) -> None:
        super().__init__(reply, verdict or judge(reply))


class UnknownOutcomeError(MailError):
    """The mail was handed over, but the server's answer never came: it may have been sent."""

    code = "mail_outcome_unknown"
    text = "The mail may have been sent, the server never said"

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply, Verdict.UNKNOWN)


# Words of servers that leave it to their words whose fault it is, in small letters.
# Source: docs.aws.amazon.com/ses SMTP response codes, learn.microsoft.com NDR codes, support.google.com/a/3726730,
# sendgrid.com/docs sender-identity, postmarkapp.com/developer error 400, support.cpanel.net 360049231233,
# postfix.org anvil and smtpd_recipient_restrictions, exim.org default ACLs;
# github.com: frappe/erpnext/issues/19057, Monstarrrr/rebutify/issues/162, izmjs/izmjs/issues/26
LIMITS = (
    r"too many (e?mails|messages|requests|recipients from)\b",  # Mailtrap, MailerSend, Postfix
    r"too much mail from",  # Postfix
    r"exceeded the max (emails|defers and failures) per",  # cPanel
    # SES, Google, Exchange, Brevo
    r"(daily|hourly|monthly|peak|sending|relay)\b.{0,30}\b(rate|limit|quota)s?\b.{0,12}\b(exceeded|reached)",
    r"(exceeded|reached)\b.{0,20}\b(daily|hourly|monthly|sending|messaging)\b.{0,30}\b(limit|quota)",
    r"rate.?limit|throttl",  # Outlook and others
    r"maximum credits exceeded",  # SendGrid
    r"unusual sending activity",  # Zoho
)
# Source: learn.microsoft.com smtp-submission-improvements, postfix.org anvil
TOO_MANY_AT_ONCE = (
    r"^\w+ 432 |\b(concurrent|simultaneous)\b|too many (open )?connections|(connection|thread) limit"
)
IDENTITY = (
    r"email address is not verified",  # SES
    r"sending (is )?(paused|suspended|disabled)",  # SES
    r"your (smtp )?account\b.{0,20}\b(suspended|disabled|blocked|not yet activated|pending approval)",  # Brevo
    r"not allowed to send(?! to)",  # Mailgun
    r"verified sender identity|unauthenticated senders",  # SendGrid
    r"(not a|no) sender signature|sender signature .*not",  # Postmark
    r"sending from .*not allowed",  # Mailtrap
    r"relay(ing)? (access )?(denied|disallowed|not permitted|prohibited)|unable to relay",  # all of them
    r"sender (address rejected|verify failed|denied)|not owned by",  # Postfix, Exim
    r"not have permissions to send as|sendasdenied",  # Exchange
)

VERDICTS: tuple[tuple[str, Verdict], ...] = (
    # "stage code enhanced words", "-" for no code: the first line that fits the whole decides.
    # The stage says whose fault it is: up to MAIL the lane's, at RCPT the recipient's, then the message's.
    # Source: RFC 5321 4.2 and 4.5.3.1.10, RFC 3463, RFC 1870, RFC 4954, RFC 7504, RFC 7505
    (r"(connect|ehlo|tls|auth) .*", Verdict.LANE),
    (r"\w+ (421|432|454) .*", Verdict.LANE),  # closing, too many at once, over the rate or the day's quota
    (r"\w+ 53[0458] .*", Verdict.LANE),  # wants a password, or another one
    (r"\w+ 451 4\.4\.2 .*", Verdict.LANE),  # it waited too long for us: the same as 421
    (r"\w+ 5\d\d 5\.4\.5 .*", Verdict.LANE),  # as many mails as the day allows, says Gmail
    (r"\w+ 5\d\d 5\.1\.90 .*", Verdict.LANE),  # and Exchange
    (r"\w+ 554 5\.2\.0 .*", Verdict.LANE),  # and Exchange, too
    (r"mail 5\d\d 5\.(2\.3|3\.4|6\.\d+) .*", Verdict.FAILED),  # this message: its size, or its kind
    (r"mail 552 - .*", Verdict.FAILED),  # the answer to a SIZE= too large
    (r"mail 452 .*", Verdict.LATER),  # no room for a message of this size now
    (r"mail .*", Verdict.LANE),  # the sender, which all mail has in common
    (rf"\w+ [45]\d\d \S+ .*\b({'|'.join(LIMITS)}).*", Verdict.LANE),
    (rf"\w+ 5\d\d \S+ .*\b({'|'.join(IDENTITY)}).*", Verdict.SENDER),
    (r"rcpt 4\d\d 4\.1\.[78] .*", Verdict.LANE),  # the sender again: many servers check it as late as here
    (r"rcpt 5\d\d 5\.1\.[78] .*", Verdict.SENDER),
    # Exchange: not to be sent as, no relay, an account or a tenant that is barred
    (r"\w+ 5\d\d 5\.(2\.25[23]|7\.(54|60|64|50[123]|705|708)) .*", Verdict.SENDER),
    (r"rcpt 5\d\d 5\.(1\.(1|2|6|10)|2\.1) .*", Verdict.SUPPRESSED),  # no such user or host, gone, closed
    (r"rcpt (521|556) (-|5\.3\.2) .*", Verdict.SUPPRESSED),  # the host takes no mail at all
    (r"(rcpt|data|dot) 5\d\d 5\.2\.2 .*", Verdict.LATER),  # the mailbox is full; people tidy up
    (r"rcpt 552 5\.(3\.4|7\.\d+) .*", Verdict.FAILED),
    (r"rcpt 552 .*", Verdict.LATER),  # once meant "too many recipients"
    # 5.7.x is policy, mostly about the sender: no reason to mail nobody there again. Nor is a bare 550, which
    # says "no such user" and "against our policy" alike: one mail in vain does less harm than a reader lost.
    (r"(rcpt|data|dot) 5\d\d .*", Verdict.FAILED),
    (r"(rcpt|data|dot) 4\d\d .*", Verdict.LATER),
    (r".*", Verdict.LANE),  # before the dot it hung up, was silent or spoke no SMTP
)


def line_of(reply: Reply) -> str:
    """Return an answer as the table of verdicts wants it; an enhanced code that contradicts the code is none."""
    agrees = reply.enhanced[:1] == str(reply.code)[:1]
    return f"{reply.stage} {reply.code or '-'} {(agrees and reply.enhanced) or '-'} {reply.words.lower()}"


def is_crowded(reply: Reply) -> bool:
    """Say whether a server complains of too many mails or connections at the same time."""
    return re.search(TOO_MANY_AT_ONCE, line_of(reply)) is not None


def judge(reply: Reply) -> Verdict:
    """Say what follows from a refusal."""
    line = line_of(reply)
    return next(verdict for pattern, verdict in VERDICTS if re.fullmatch(pattern, line, re.DOTALL))


def read_reply(stage: str, code: int | None, text: str) -> Reply:
    """Return what a server's words, line by line and without the codes in front, say."""
    lines = [line.strip() for line in text.splitlines()]
    enhanced = {found[1] for line in lines if (found := ENHANCED.match(line))}
    said = " ".join(ENHANCED.sub("", line, count=1) if ENHANCED.match(line) else line for line in lines)
    words = "".join(letter if letter.isprintable() else " " for letter in said[:MAX_WORDS])
    # Lines that contradict each other are not worth believing.
    only = enhanced.pop() if len(enhanced) == 1 else ""
    return Reply(stage, code, only, words, _read_wish(words) if (code or 0) // 100 == 4 else None)


def _read_wish(words: str) -> float | None:
    """Find "try again in 5 minutes" or "come back in 00:04:52"; what is longer than a day is a day."""
    found = WISH.search(words)
    if found is None:
        return None
    if found["clock"]:
        hours, minutes, seconds = (int(part) for part in found["clock"].split(":"))
        wish_s = hours * 3600 + minutes * 60 + seconds
    else:
        wish_s = int(found["amount"]) * UNIT_S[found["unit"][0].lower()]
    return min(float(wish_s), MAX_RETRY_AFTER_S) or None
