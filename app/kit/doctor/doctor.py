"""Says which promises hold where it runs, in sentences for people: `python3 main.py doctor`.

It changes nothing, makes no database, and may run while the site does. What it tries, it tries in a folder
of its own beside the data, which it takes away again.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import platform
import socket
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from urllib.parse import urlsplit

from app.kit.doctor.disk import (
    Check,
    check_database,
    check_disk,
    check_folder,
    check_space,
    check_wal_size,
)
from app.kit.doctor.hosts import smtp_advice
from app.kit.errors import PostroomError
from app.kit.host.known_hosts import find_host
from app.kit.mail.replies import MailError
from app.kit.mail.transports import Transport, transport_for
from app.kit.settings_checks import misspelt
from app.kit.settings_mail import parse_sender
from app.settings import Settings

OLDEST_SQLITE = (3, 37, 0)
"""The first with STRICT tables."""
MAIL_LIMIT_S = 100.0
"""Longer than sending waits for a connection and a greeting."""
RESEND_PER_MINUTE = 100
"""Below the 2 requests a second that Resend takes by default."""

PORTS_OF_THE_OTHER = {"smtp": (465,), "smtps": (25, 587, 2525)}
"""Ports at which a server speaks TLS from the first byte, or does not. Source: RFC 8314"""

UNSET = {
    "SECRET_KEY": "SECRET_KEY is not set: the site keeps one in the data folder, and links in mails end with it.",
    "ADMIN_TOKEN": "ADMIN_TOKEN is not set: each start makes another.",
}


log = logging.getLogger("postroom")


def report(settings: Settings, environ: Mapping[str, str] = os.environ) -> int:
    """Print every check; return the exit status, 1 when something is wrong."""
    status = 0
    for check in look(settings, environ):
        print(
            check, flush=True
        )  # as soon as it is known: the mail server, which comes last, may take its time
        status |= check.state == "wrong"
    return int(status)


def warn(settings: Settings, environ: Mapping[str, str] = os.environ) -> None:
    """Write into the log what a start should say, in a thread: it tries the disk, and nobody waits for that."""

    def write() -> None:
        for check in glance(settings, environ):
            log.warning("%s: %s (python3 main.py doctor tells more)", check.name, check.sentence)

    threading.Thread(target=write, name="Doctor", daemon=True).start()


def glance(settings: Settings, environ: Mapping[str, str] = os.environ) -> list[Check]:
    """Return what a start should say: warnings, and what is wrong, as far as it is known at once."""
    return [check for check in look(settings, environ, at_once=True) if check.state != "ok"]


def look(settings: Settings, environ: Mapping[str, str], at_once: bool = False) -> Iterator[Check]:
    """Yield every check; `at_once` leaves out those that take time."""
    yield check_versions()
    yield check_environment(settings, environ)
    yield from check_folder(settings.data_dir)
    yield check_space(settings.data_dir)
    yield check_disk(settings.data_dir, environ)
    yield check_wal_size(settings.database_path)
    if not at_once:
        yield check_database(settings)
    yield from check_spelling(environ)
    yield check_public_url(settings)
    yield check_visitors(settings, environ)
    yield check_secrets(settings, environ)
    yield check_mail_settings(settings)
    if not at_once:
        yield check_mail(settings, environ)


# The machine


def check_versions(sqlite: tuple[int, ...] = sqlite3.sqlite_version_info) -> Check:
    """Name the versions of Python and SQLite."""
    versions = f"Python {platform.python_version()} and SQLite {'.'.join(map(str, sqlite))}"
    if sqlite < OLDEST_SQLITE:
        return Check("versions", "wrong", f"{versions}; SQLite 3.37 or newer is needed, so a newer Python.")
    return Check("versions", "ok", f"{versions}.")


def check_environment(settings: Settings, environ: Mapping[str, str]) -> Check:
    """Name the environment; a published site should be in production."""
    host, name = find_host(environ), settings.environment
    if host is not None and host.is_public and not settings.production:
        sentence = f"{name}, though this is {host.name}. Set APP_ENV=production on a published site."
        return Check("environment", "warning", sentence)
    return Check("environment", "ok", f"{name}.")


# The settings


def check_public_url(settings: Settings) -> Check:
    """See whether links in mails lead here."""
    if settings.production and _is_local(urlsplit(settings.public_url).hostname or ""):
        sentence = (
            f"it is {settings.public_url}, so links in mails lead nowhere, and who comes by another name is turned "
            "away. Set the site's public address."
        )
        return Check("PUBLIC_URL", "warning", sentence)
    return Check("PUBLIC_URL", "ok", f"links in mails begin with {settings.public_url}.")


def check_spelling(environ: Mapping[str, str]) -> list[Check]:
    """Name variables that look as if one of ours was meant."""
    return [
        Check("settings", "warning", f"{variable} is no setting, so it changes nothing. Is {ours} meant?")
        for variable, ours in misspelt(
            environ, [setting.metadata["variable"] for setting in fields(Settings)]
        )
    ]


def check_visitors(settings: Settings, environ: Mapping[str, str]) -> Check:
    """See whether visitors can be told apart: behind a proxy all come from its address."""
    host, proxies = find_host(environ), settings.behind_proxy
    if host is not None and host.proxies and not proxies:
        sentence = (
            f"BEHIND_PROXY is 0, but this is {host.name}, with a proxy before the site: all visitors count as "
            "one client, who may subscribe and guess wrong 20 times an hour. Unset BEHIND_PROXY."
        )
        return Check("visitors", "warning", sentence)
    if proxies:
        sentence = (
            f"X-Forwarded-For tells their addresses, a proxy stands before us (BEHIND_PROXY is {proxies})."
        )
        return Check("visitors", "ok", sentence)
    return Check(
        "visitors", "ok", "their addresses are those of their connections: no proxy stands before us."
    )


def check_secrets(settings: Settings, environ: Mapping[str, str]) -> Check:
    """See whether a published site has secrets that last; they are not shown."""
    unset = [sentence for name, sentence in UNSET.items() if not environ.get(name, "").strip()]
    if settings.production and unset:
        return Check("secrets", "warning", f"{' '.join(unset)} Set a long random text of your own.")
    return Check("secrets", "ok", "the site makes its own." if unset else "they are set.")


def check_mail_settings(settings: Settings) -> Check:
    """See whether the settings of mail go together."""
    url, sender = urlsplit(settings.mail_url), parse_sender(settings.mail_from).addr_spec
    doubt = ""
    if settings.production and not settings.mail_url:
        doubt = "MAIL_URL is not set: mails stay in the built-in inbox and reach nobody."
    elif url.scheme == "smtp+plain" and not _is_local(url.hostname or ""):
        doubt = "smtp+plain:// sends mails in the clear, to another machine. Use smtp:// or smtps://."
    elif url.scheme in PORTS_OF_THE_OTHER and url.port in PORTS_OF_THE_OTHER[url.scheme]:
        other = "smtps" if url.scheme == "smtp" else "smtp"
        doubt = f"port {url.port} usually wants {other}://, not {url.scheme}://."
    elif settings.mail_url and _is_local(sender.rpartition("@")[2]):
        doubt = f"MAIL_FROM is {sender}, which mail servers refuse. Set an address of your own domain."
    elif url.scheme == "resend" and not settings.mail_per_minute:
        doubt = f"Resend may take 2 mails a second only. Set MAIL_PER_MINUTE={RESEND_PER_MINUTE}."
    return Check("mail settings", "warning" if doubt else "ok", doubt or f"sender {sender}.")


# The mail server


def check_mail(settings: Settings, environ: Mapping[str, str], limit_s: float = MAIL_LIMIT_S) -> Check:
    """Reach the mail server and sign in, in limited time whatever hangs, name servers included; send nothing."""
    found: list[Check] = []
    thread = threading.Thread(target=lambda: found.append(_probed(settings, environ)), daemon=True)
    thread.start()
    thread.join(limit_s)
    if found:
        return found[0]
    return _unreachable(settings, environ, f"no answer within {limit_s:g} s.")


def _probed(settings: Settings, environ: Mapping[str, str]) -> Check:
    way: Transport | None = None
    try:
        way = transport_for(settings)
        return Check("mail", "ok", way.probe())
    except MailError as error:
        if isinstance(error.__cause__, socket.gaierror | UnicodeError):
            return Check("mail", "wrong", f"{error.reply}. Is the host in MAIL_URL written right?")
        if error.reply.stage == "connect" and isinstance(error.__cause__, OSError):
            return _unreachable(settings, environ, f"{error.reply}.")
        return Check("mail", "wrong", f"the server cannot be used, {error.reply}.")
    except PostroomError as error:
        return Check("mail", "wrong", str(error))
    except Exception as error:  # its words may hold a password
        return Check("mail", "wrong", f"the transport has a bug: {type(error).__name__}.")
    finally:
        if way is not None:
            with suppress(Exception):
                way.close()


def _unreachable(settings: Settings, environ: Mapping[str, str], what: str) -> Check:
    url = urlsplit(settings.mail_url)
    if _is_local(url.hostname or ""):
        return Check("mail", "wrong", f"{what} Does the mail server run on this machine, at that port?")
    return Check("mail", "wrong", f"{what} {smtp_advice(environ)}" if url.scheme.startswith("smtp") else what)


def _is_local(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified
