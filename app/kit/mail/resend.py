"""Mail over HTTPS, by Resend's API, for hosts that block SMTP; another provider is a copy of this file.

A transport is one class with `name`, `idempotent_for_s`, `deliver`, `probe` and `close`.
Source: resend.com/docs: api-reference/emails/send-email, .../errors, .../rate-limit, emails/idempotency-keys
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import ipaddress
import json
import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.parser import BytesHeaderParser
from email.utils import getaddresses, parsedate_to_datetime
from typing import Any

from app.kit.mail.handover import hand_over
from app.kit.mail.ledger import Email
from app.kit.mail.reaching import left_s, reach
from app.kit.mail.replies import MAX_RETRY_AFTER_S, NotSentError, Reply, UnknownOutcomeError, Verdict
from app.kit.settings_mail import parse_mail_url, parse_sender

CONNECT_S = 10.0
"""For all of: reaching the host, at whichever of its addresses, and TLS."""
ANSWER_S = 60.0
"""For all of: sending the request and reading the whole answer."""
MAX_ANSWER_BYTES = 64 * 1024
MAX_WORDS = 300
QUOTA_PAUSE_S = 3600.0
"""Resend does not say when a new day or month of its quota begins; one try an hour finds out."""
OWN_FIELD = re.compile(r"(?i)from|to|cc|reply-to|subject|date|mime-version|content-.*")
"""Headers that have a field of their own in the request, or that Resend writes itself."""

VERDICTS: tuple[tuple[str, Verdict], ...] = (
    # "status name message", in small letters: the first line that fits decides. An answer without a name ("-")
    # is not Resend's own but that of something in between, and no mail fails for it.
    (r"429 .*", Verdict.LANE),
    (r"409 invalid_idempotent_request .*", Verdict.FAILED),  # taken before, with other content
    (r"(3\d\d|404|405) .*", Verdict.LANE),
    # Whom this one is for: without a domain of one's own, mail may go to oneself alone.
    (r"40[13] (invalid_to_address|\w+ you can only send testing emails) .*", Verdict.FAILED),
    (r"401 \w+ .*|40[13] \w+_api_key .*", Verdict.LANE),  # the key: the site's fault
    (r"403 \w+ .*", Verdict.SENDER),  # a domain that is not verified, mostly
    (r"4\d\d invalid_from_address .*", Verdict.LANE),
    (r"4\d\d \w+ .*(api key|\bfrom\W{1,2}(field|address)).*", Verdict.LANE),
    (r"(400|413|422) \w+ .*", Verdict.FAILED),
    (r".*", Verdict.LATER),
)


class ResendTransport:
    """Gives mail to Resend, each over a connection of its own."""

    name = "resend"
    idempotent_for_s = 23 * 3600.0
    """Resend knows a mail for 24 hours. An hour of them is for clocks that differ."""

    def __init__(
        self, url: str, sender: str, connect_s: float = CONNECT_S, answer_s: float = ANSWER_S
    ) -> None:
        """Take `resend://api_key`, or for tests `resend://api_key@127.0.0.1:port`.

        Raises: SettingError.
        """
        found = parse_mail_url(url)
        self._key, self.host = found.password or "", found.host
        # Only this machine is ever spoken to in clear text, or the key would be anybody's.
        self._tls = None if _is_loopback(self.host) else ssl.create_default_context()
        self.port = found.port or (443 if self._tls else 80)
        self.sender, self._connect_s, self._answer_s = sender, connect_s, answer_s

    def deliver(self, email: Email) -> None:
        """Connect, then hand the mail over.

        Raises: NotSentError, UnknownOutcomeError.
        """
        body = request_body(email, self.sender)
        # All requests of one key send one mail. The Message-ID is as lasting as the row, and never comes again.
        key = hashlib.sha256(email.message_id.encode()).hexdigest()
        with self._connected() as connection:
            hand_over(email, lambda: self._give(connection, body, key))

    def probe(self) -> str:
        """Say whether Resend answers, knows the key, and may send for the sender's domain; send nothing.

        Raises: NotSentError.
        """
        with self._connected() as connection:
            try:
                answer, reply = self._ask(connection, "GET", "/domains")
            except (OSError, http.client.HTTPException) as error:
                raise NotSentError(self._reply("http", error), Verdict.LANE) from error
        if answer.get("name") == "restricted_api_key":
            return "Resend answers and knows the key, which may send mail and nothing else."
        if reply.code != 200:
            raise NotSentError(reply, _verdict(reply))
        found = answer.get("data")
        domains = [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
        verified = [entry.get("name") for entry in domains if entry.get("status") == "verified"]
        domain = parse_sender(self.sender).domain.lower()
        if domain not in (*verified, "resend.dev") and not answer.get("has_more"):
            words = f"{domain}, the domain of MAIL_FROM, is not verified at Resend"
            raise NotSentError(Reply("http", 200, "", words), Verdict.LANE)
        return f"Resend answers, knows the key, and sends for {domain}."

    def close(self) -> None:
        """Do nothing: no connection outlives its mail."""

    def _give(self, connection: http.client.HTTPConnection, body: bytes, key: str) -> Reply:
        try:
            answer, reply = self._ask(connection, "POST", "/emails", body, key)
        except (OSError, http.client.HTTPException) as error:
            raise UnknownOutcomeError(self._reply("http", error)) from error
        if reply.code == 200 and answer.get("id"):
            return Reply("http", 200, "", self._clean(f"id {answer['id']}"))
        if reply.code not in range(300, 500):  # a yes that cannot be read; a fault, perhaps after the yes
            raise UnknownOutcomeError(reply)
        raise NotSentError(reply, _verdict(reply))

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes = b"", key: str = ""
    ) -> tuple[dict[str, Any], Reply]:
        """Return the answer's JSON, {} if it is none, and what the answer says in words."""
        headers = {
            "Authorization": f"Bearer {self._key}",
            "Content-Type": "application/json",
            "User-Agent": "postroom",  # Resend answers 403 to those who have none
        }
        if key:
            headers["Idempotency-Key"] = key
        connection.request(method, path, body, headers)
        response = connection.getresponse()  # which follows no redirect
        raw = response.read(MAX_ANSWER_BYTES)
        answer = _json_object(raw)
        name = str(answer.get("name") or "-")
        words = f"{name} {answer.get('message') or raw.decode('ascii', 'replace') or response.reason}"
        pause_s = retry_after_s(response.headers.get("retry-after"), datetime.now(UTC))
        if name in ("daily_quota_exceeded", "monthly_quota_exceeded"):
            pause_s = max(pause_s or 0.0, QUOTA_PAUSE_S)
        return answer, Reply("http", response.status, "", self._clean(words), pause_s)

    @contextmanager
    def _connected(self) -> Iterator[http.client.HTTPConnection]:
        """Connect: what fails here fails before the mail's row says `sending`."""
        try:
            sock = reach(self.host, self.port, self._connect_s, self._tls)
        except (OSError, UnicodeError) as error:
            raise NotSentError(self._reply("connect", error, f"{self.host} port {self.port}, ")) from error
        with closing(sock):
            connection = http.client.HTTPConnection(self.host, self.port)
            connection.sock = _TimedSocket(sock, self._answer_s)
            yield connection

    def _reply(self, stage: str, error: Exception, where: str = "") -> Reply:
        return Reply(stage, None, "", self._clean(f"{where}{type(error).__name__}: {error}"))

    def _clean(self, words: str) -> str:
        """Return what people may see: one line of bounded length, without the key."""
        words = re.sub(r"[^ -~\xa0-\ud7ff]+", " ", words.replace(self._key, "***"))
        return words if len(words) <= MAX_WORDS else words[: MAX_WORDS - 1] + "…"


class _TimedSocket(io.RawIOBase):
    """What http.client uses of a socket, with one time limit from the first byte sent to the last that drips in."""

    def __init__(self, sock: socket.socket, limit_s: float) -> None:
        self._sock, self._limit_s, self._deadline = sock, limit_s, 0.0

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._timed().send(view) :]

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._timed().recv_into(buffer)

    def close(self) -> None:
        """Leave that to who connected: http.client closes its socket and reads on from the file."""

    def _timed(self) -> socket.socket:
        self._deadline = self._deadline or time.monotonic() + self._limit_s
        self._sock.settimeout(left_s(self._deadline))
        return self._sock


def _is_loopback(host: str) -> bool:
    """Say whether that is an address of this machine; a name may lead elsewhere, even localhost."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _verdict(reply: Reply) -> Verdict:
    line = f"{reply.code} {reply.words}".lower()
    return next(verdict for pattern, verdict in VERDICTS if re.fullmatch(pattern, line))


def retry_after_s(text: str | None, now: datetime) -> float | None:
    """Return for how long a `Retry-After` asks, a day at most; None when it does not ask.

    Source: RFC 9110 10.2.3: seconds, or a date.
    """
    text = (text or "").strip()
    try:
        wait_s = float(text) if text.isdecimal() else (parsedate_to_datetime(text) - now).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(wait_s, 0.0), MAX_RETRY_AFTER_S)


def request_body(email: Email, sender: str) -> bytes:
    """Turn a mail into Resend's JSON: the same row gives the same bytes on every try.

    The sender is today's MAIL_FROM: a mail rendered before it was put right would be refused for ever.
    """
    mail = message_from_bytes(email.message, policy=policy.default)
    # As they stand in the mail: what is not ASCII is encoded for headers already, and stays so.
    headers = BytesHeaderParser(policy=policy.compat32).parsebytes(email.message)
    content: dict[str, Any] = {
        "from": sender,
        "to": [email.to_address],
        "subject": str(mail["Subject"]),
        # Who else has a copy is not named: each has their own, and a field "cc" would send another.
        "headers": {k: re.sub(r"\r?\n", "", v) for k, v in headers.items() if not OWN_FIELD.fullmatch(k)},
    }
    if "reply-to" in headers:
        content["reply_to"] = [address for _, address in getaddresses([headers["reply-to"]])]
    for field, kind in (("text", "plain"), ("html", "html")):
        part = mail.get_body((kind,))
        if part is not None:
            content[field] = str(part.get_content()).replace("\r\n", "\n")
    attachments = [_attachment(part) for part in mail.iter_attachments() if isinstance(part, EmailMessage)]
    if attachments:
        content["attachments"] = attachments
    return json.dumps(content, sort_keys=True).encode()


def _attachment(part: EmailMessage) -> dict[str, str]:
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else bytes(part.get_content())  # a mail inside the mail
    return {
        "filename": part.get_filename() or "attachment",
        "content_type": part.get_content_type(),
        "content": base64.b64encode(data).decode(),
    }
