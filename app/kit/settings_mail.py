"""What MAIL_FROM, MAIL_URL and PUBLIC_URL may hold: read here alone, at the start and wherever mail is sent."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from email.headerregistry import Address
from functools import lru_cache
from urllib.parse import unquote, urlsplit

from email_validator import EmailNotValidError, validate_email
from werkzeug.urls import iri_to_uri

from app.kit.errors import SettingError

NOT_ONE_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, line breaks and half characters: no header holds them."""

MAIL_SCHEMES = ("smtp", "smtps", "smtp+plain", "resend")
MAIL_URLS = (
    "unset (the built-in inbox), smtp://user:password@host:587, smtps://user:password@host:465, "
    "smtp+plain://host:25 or resend://api_key; in a password # / ? % are written %23 %2F %3F %25"
)
RESEND_HOST = "api.resend.com"
HOST = r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\]"
DOMAIN = r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
MAX_URL = 500
"""Letters: a link with a token must fit a header's line."""


@lru_cache(maxsize=8)
def parse_sender(mail_from: str) -> Address:
    """Split MAIL_FROM into name and address, as SMTP carries it: an international domain becomes ASCII.

    Raises: SettingError.
    """
    name, bracket, address = mail_from.strip().rpartition("<")
    name = name.strip()
    if len(name) > 1 and name[0] == name[-1] == '"':
        name = name[1:-1].replace('\\"', '"')
    usable = bool(bracket) == address.endswith(">") and not re.search("[<>]|@.*,", name)
    try:
        on_wire = (
            _sender_on_wire(address.removesuffix(">"))
            if usable and not NOT_ONE_LINE.search(mail_from)
            else None
        )
    except EmailNotValidError:
        on_wire = None
    if on_wire is None:
        expected = (
            "one address, such as Name <address@your-domain.example>, on one line, in no quotes as a whole"
        )
        raise SettingError("MAIL_FROM", mail_from, expected)
    return Address(name, addr_spec=on_wire)


def _sender_on_wire(address: str) -> str | None:
    name, _, domain = address.rpartition("@")
    if not re.fullmatch(DOMAIN, domain):
        return validate_email(address, check_deliverability=False).ascii_email
    # The validator refuses localhost and the like, from where a relay next door takes mail.
    found = validate_email(f"{name}@example.com", check_deliverability=False)
    return found.ascii_email and f"{name}@{domain}"


@dataclass(frozen=True)
class MailUrl:
    """Where mail goes: a way, a host, and who we are there. Of Resend the password is the key."""

    scheme: str
    host: str
    port: int | None = None
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


def parse_mail_url(text: str) -> MailUrl:
    """Split MAIL_URL; user, password and key stand in it percent-encoded.

    Raises: SettingError, which repeats none of them.
    """
    try:
        parts = urlsplit(text)
        login, at, place = parts.netloc.rpartition("@")
        if parts.scheme == "resend" and not at:
            login, place = place, RESEND_HOST
        user, colon, password = login.partition(":") if parts.scheme != "resend" else ("", "", login)
        parts = parts._replace(netloc=place)
        port = parts.port
        usable = (
            parts.scheme in MAIL_SCHEMES
            and not NOT_ONE_LINE.search(unquote(text))
            and "\ufffd" not in unquote(text)  # bytes that are no text
            and re.fullmatch(HOST, iri_to_uri(f"//{place}")[2:].removesuffix(f":{port}")) is not None
            and port != 0
            # What follows the host is most likely the rest of a password with a # or / that is not encoded.
            and not (parts.path.strip("/") + parts.query + parts.fragment)
        )
    except ValueError:
        usable = False
    if usable and parts.scheme == "resend":
        usable = re.fullmatch(r"[!-~]+", unquote(password)) is not None  # it travels in a header
    elif usable and (at or login):
        usable = bool(user and colon) and parts.scheme != "smtp+plain"  # no password in the clear
    if not usable:
        # The value may hold a password, or be a key and nothing else: say only what kind of address it is.
        scheme = text.partition(":")[0].lower()
        raise SettingError("MAIL_URL", f"{scheme if scheme in MAIL_SCHEMES else ''}...", MAIL_URLS)
    login_given = bool(at or parts.scheme == "resend")
    return MailUrl(
        parts.scheme,
        parts.hostname or "",
        port,
        unquote(user) if login_given else None,
        unquote(password) if login_given else None,
    )


def parse_public_url(text: str) -> str:
    """Return PUBLIC_URL as links begin with it: in ASCII, without a slash at the end.

    Raises: SettingError.
    """
    try:
        usable = text.isprintable() and " " not in text and urlsplit(text).port != 0
        url = iri_to_uri(text).rstrip("/")
    except ValueError:
        usable, url = False, ""
    # No user or password, which each reader would get, and no ? or #, behind which a path is none.
    pattern = rf"https?://({HOST})(:\d+)?(/([\w.~-]|%[0-9A-Fa-f]{{2}})+)*"
    if not usable or len(url) > MAX_URL or not re.fullmatch(pattern, url):
        raise SettingError(
            "PUBLIC_URL", text, "an address such as https://books.example.com, without spaces, ? and #"
        )
    return url
