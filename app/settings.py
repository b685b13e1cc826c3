"""Every setting of the kit: its variable, unit and default. Read once, checked at the start."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from app.kit.errors import SettingError
from app.kit.host.known_hosts import find_host
from app.kit.settings_checks import HOST_NAME, check_secrets, host_names
from app.kit.settings_mail import parse_mail_url, parse_public_url, parse_sender

PROJECT_DIR = Path(__file__).resolve().parent.parent
SECRETS = ("SECRET_KEY", "ADMIN_TOKEN", "MAIL_URL")
LEAST_SECRET = 5
"""Characters: a shorter word may be part of any other."""


def _whole(low: int, high: int) -> Callable[[str, str], int]:
    def parse(variable: str, text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise SettingError(variable, text, f"a whole number from {low} to {high}")
        return int(text)

    return parse


def _one_of(*choices: str) -> Callable[[str, str], str]:
    def parse(variable: str, text: str) -> str:
        for choice in choices:
            if text.lower() == choice.lower():
                return choice
        raise SettingError(variable, text, "one of " + ", ".join(choices))

    return parse


def _yes_or_no(variable: str, text: str) -> bool:
    if text not in ("0", "1"):
        raise SettingError(variable, text, "0 or 1")
    return text == "1"


def _text(variable: str, text: str) -> str:
    if any(ord(character) < 32 for character in text):
        raise SettingError(variable, "..." if variable in SECRETS else text, "one line of text")
    return text


def _host(variable: str, text: str) -> str:
    """Read an address without a port; [::1] is the way links write ::1."""
    host = text.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if not re.fullmatch(HOST_NAME, host):
            expected = "an address without a port (that is PORT), such as 0.0.0.0, 127.0.0.1 or ::"
            raise SettingError(variable, text, expected) from None
    return host


def _delays(variable: str, text: str) -> tuple[float, ...]:
    try:
        delays = tuple(float(part) for part in text.split(","))
    except ValueError:
        delays = ()
    if not delays or not all(0 < delay <= 7 * 24 * 3600 for delay in delays):
        raise SettingError(variable, text, "seconds, separated by commas, such as 60,300,900")
    return delays


def _checked(read: Callable[[str], Any]) -> Callable[[str, str], str]:
    """Keep a text that can be read, as it is."""

    def parse(_variable: str, text: str) -> str:
        read(text)
        return text

    return parse


def _path(variable: str, text: str) -> Path:
    return Path(_text(variable, text)).expanduser().absolute()


def _setting(variable: str, parse: Callable[[str, str], Any], default: Any, unit: str, meaning: str) -> Any:
    metadata = {"variable": variable, "parse": parse, "unit": unit, "meaning": meaning}
    shown = variable not in SECRETS
    if callable(default):
        return field(default_factory=default, metadata=metadata, repr=shown)
    return field(default=default, metadata=metadata, repr=shown)


@dataclass(frozen=True)
class Settings:
    """All settings, read by `Settings.read()` or made by hand in tests."""

    port: int = _setting("PORT", _whole(0, 65535), 5000, "", "port the site listens on")
    host: str = _setting("HOST", _host, "0.0.0.0", "", "address the site listens on")
    environment: str = _setting(
        "APP_ENV", _one_of("development", "production"), "development", "", "development or production"
    )
    data_dir: Path = _setting("DATA_DIR", _path, None, "", "folder of the database, made if absent")
    mail_url: str = _setting(
        "MAIL_URL", _checked(parse_mail_url), "", "", "where mail goes; unset: the built-in inbox"
    )
    mail_from: str = _setting(
        "MAIL_FROM", _checked(parse_sender), "Postroom <postroom@localhost>", "", "sender of every mail"
    )
    mail_per_minute: int = _setting(
        "MAIL_PER_MINUTE",
        _whole(0, 10**6),
        0,
        "mails",
        "most mails a minute, as your provider allows; 0: no limit",
    )
    mail_retry_delays_s: tuple[float, ...] = _setting(
        "MAIL_RETRY_DELAYS_S", _delays, (300, 900, 1800, 3600, 7200, 14400), "seconds",
        "waits before a refused mail is tried again; the last repeats",
    )  # fmt: skip
    mail_pause_delays_s: tuple[float, ...] = _setting(
        "MAIL_PAUSE_DELAYS_S", _delays, (5, 30, 60, 300, 900), "seconds",
        "pauses of all mail while the server cannot be used; the last repeats",
    )  # fmt: skip
    mail_expires_s: int = _setting(
        "MAIL_EXPIRES_S", _whole(1, 10**9), 4 * 24 * 3600, "seconds", "how long a mail is tried"
    )
    mail_ttl_s: int = _setting(
        "MAIL_TTL_S", _whole(1, 10**9), 30 * 24 * 3600, "seconds", "how long a mail that has ended is kept"
    )
    confirm_ttl_s: int = _setting(
        "CONFIRM_TTL_S",
        _whole(1, 10**9),
        7 * 24 * 3600,
        "seconds",
        "how long a subscription may be confirmed",
    )
    public_url: str = _setting(
        "PUBLIC_URL", lambda _, text: parse_public_url(text), "", "", "the site's address in links of mails"
    )
    trusted_hosts: tuple[str, ...] = _setting(
        "TRUSTED_HOSTS", host_names, (), "",
        "names the site answers to beside localhost, IP addresses, PUBLIC_URL's and the host's own; .example.com: "
        "all below it",
    )  # fmt: skip
    secret_key: str = _setting("SECRET_KEY", _text, "", "", "signs cookies and the links in mails")
    admin_token: str = _setting(
        "ADMIN_TOKEN", _text, lambda: secrets.token_urlsafe(24), "", "the operator's bearer token"
    )
    task_threads: int = _setting("TASK_THREADS", _whole(1, 64), 4, "threads", "jobs that run at once")
    web_threads: int = _setting("WEB_THREADS", _whole(2, 256), 8, "threads", "requests served at once")
    sqlite_synchronous: str = _setting(
        "SQLITE_SYNCHRONOUS", _one_of("FULL", "NORMAL"), "FULL", "",
        "FULL survives a power cut; NORMAL may lose the last moments to one",
    )  # fmt: skip
    max_pending_jobs: int = _setting(
        "MAX_PENDING_JOBS", _whole(1, 10**9), 100_000, "jobs", "ready and scheduled jobs before 503"
    )
    max_job_bytes: int = _setting(
        "MAX_JOB_BYTES", _whole(256, 10**8), 262_144, "bytes", "largest arguments or result of one job"
    )
    result_ttl_s: int = _setting(
        "RESULT_TTL_S", _whole(1, 10**9), 24 * 3600, "seconds", "how long a job's result is kept"
    )
    done_ttl_s: int = _setting(
        "DONE_TTL_S", _whole(1, 10**9), 24 * 3600, "seconds", "how long a finished job is kept"
    )
    failed_ttl_s: int = _setting(
        "FAILED_TTL_S", _whole(1, 10**9), 30 * 24 * 3600, "seconds", "how long a failed job is kept"
    )
    max_request_bytes: int = _setting(
        "MAX_REQUEST_BYTES", _whole(1024, 10**9), 1_048_576, "bytes", "largest request before 413"
    )
    log_level: str = _setting(
        "LOG_LEVEL", _one_of("DEBUG", "INFO", "WARNING", "ERROR"), "INFO", "", "least level that is logged"
    )
    behind_proxy: int = _setting(
        "BEHIND_PROXY", _whole(0, 9), 0, "proxies",
        "proxies of the host before the site, which write X-Forwarded-For; known of Replit, Render, Railway, "
        "Fly.io, Heroku, Hugging Face and Koyeb",
    )  # fmt: skip
    in_frame: bool = _setting(
        "IN_FRAME", _yes_or_no, False, "",
        "1 where the host shows the site in a frame of a page of its own; on Replit, Hugging Face and GitHub "
        "codespaces it is 1",
    )  # fmt: skip
    ratelimit_enabled: bool = _setting(
        "RATELIMIT_ENABLED",
        _yes_or_no,
        True,
        "",
        "0 lets strangers subscribe and guess as often as they like",
    )
    metrics_open: bool = _setting(
        "METRICS_OPEN",
        _yes_or_no,
        False,
        "",
        "1 shows /metrics to everybody, for a Prometheus without the token",
    )

    def __post_init__(self) -> None:
        if self.data_dir is None:
            object.__setattr__(self, "data_dir", PROJECT_DIR / "data" / self.environment)
        if not self.public_url:
            object.__setattr__(self, "public_url", f"http://localhost:{self.port}")

    @property
    def bind(self) -> str:
        """Write host and port as one, as gunicorn wants them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def production(self) -> bool:
        """Say whether this is the published site."""
        return self.environment == "production"

    @property
    def is_https(self) -> bool:
        """Say whether visitors reach the site over HTTPS only."""
        return self.public_url.startswith("https://")

    @property
    def database_path(self) -> Path:
        """Name the one SQLite file."""
        return self.data_dir / "postroom.db"

    @property
    def secrets(self) -> set[str]:
        """Name what no log line may show: the keys, MAIL_URL, and the password or the API key inside it."""
        login = urlsplit(self.mail_url).netloc.rpartition("@")[0] if "@" in self.mail_url else ""
        password = login.partition(":")[2]
        api_key = self.mail_url.partition("://")[2] if self.mail_url.startswith("resend:") else ""
        found = {self.secret_key, self.admin_token, self.mail_url, password, unquote(password), api_key}
        return {secret for secret in found if len(secret) >= LEAST_SECRET}

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read every setting from the environment; an empty variable counts as unset.

        Raises: SettingError naming the variable, what was found and what is expected.
        """
        environ = os.environ if environ is None else environ
        told: dict[str, Any] = {}
        chosen: dict[str, Any] = {}
        for setting in fields(cls):
            text = environ.get(setting.metadata["variable"], "").strip()
            if text:
                chosen[setting.name] = setting.metadata["parse"](setting.metadata["variable"], text)
        if environ.get("REPLIT_DEPLOYMENT") == "1":
            told["environment"] = "production"
        if host := find_host(environ):
            names = host.names(environ, chosen.get("port", cls.port))
            told.update(
                behind_proxy=host.proxies, in_frame=host.in_frame, trusted_hosts=(*names, *host.domains)
            )
            told["public_url"] = f"https://{names[0]}" if names else ""
        settings = cls(**(told | chosen))
        if settings.production:
            check_secrets({"SECRET_KEY": settings.secret_key, "ADMIN_TOKEN": settings.admin_token})
        return settings
