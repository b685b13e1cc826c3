"""Every setting: its default, what it takes, and the sentence that refuses the rest."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from app.kit.errors import SettingError
from app.kit.settings_checks import misspelt
from app.settings import PROJECT_DIR, SECRETS, Settings

VARIABLES = [setting.metadata["variable"] for setting in fields(Settings)]


def test_nothing_is_required() -> None:
    settings = Settings.read({})
    assert (settings.port, settings.host, settings.environment) == (5000, "0.0.0.0", "development")
    assert settings.data_dir == PROJECT_DIR / "data" / "development"
    assert settings.public_url == "http://localhost:5000"
    assert (settings.task_threads, settings.web_threads) == (4, 8)
    assert settings.sqlite_synchronous == "FULL"


def test_secrets_are_made_anew_when_unset() -> None:
    first, second = Settings.read({}), Settings.read({})
    assert len(first.admin_token) >= 24
    assert first.secret_key == ""  # it is kept in the data folder, see app/kit/host/secret_key.py
    assert first.admin_token != second.admin_token


def test_an_empty_variable_counts_as_unset() -> None:
    assert Settings.read({"PORT": "", "TASK_THREADS": " "}).port == 5000


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("PORT", "8080", "port", 8080),
        ("APP_ENV", "PRODUCTION", "environment", "production"),
        ("DATA_DIR", "/elsewhere", "data_dir", Path("/elsewhere")),
        ("MAIL_URL", "smtp+plain://localhost:2525", "mail_url", "smtp+plain://localhost:2525"),
        ("MAIL_FROM", "Shop <shop@example.com>", "mail_from", "Shop <shop@example.com>"),
        ("PUBLIC_URL", "https://books.example.com/", "public_url", "https://books.example.com"),
        ("SQLITE_SYNCHRONOUS", "normal", "sqlite_synchronous", "NORMAL"),
        ("TASK_THREADS", "16", "task_threads", 16),
        ("MAX_PENDING_JOBS", "10", "max_pending_jobs", 10),
        ("LOG_LEVEL", "debug", "log_level", "DEBUG"),
        ("BEHIND_PROXY", "2", "behind_proxy", 2),
        ("RATELIMIT_ENABLED", "0", "ratelimit_enabled", False),
    ],
)
def test_a_good_value_is_read(variable: str, text: str, name: str, value: object) -> None:
    assert getattr(Settings.read({variable: text}), name) == value


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("PORT", "http"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "\u0665"),  # a digit, but not one that everybody reads
        ("APP_ENV", "staging"),
        ("MAIL_URL", "imap://localhost"),
        ("MAIL_URL", "smtp+plain://"),
        ("MAIL_URL", "smtp+plain://localhost:port"),
        ("MAIL_URL", "smtp+plain://cleo:hunter2@localhost"),
        ("MAIL_URL", "re_hunter2"),
        ("MAIL_URL", "cleo:hunter2@localhost"),
        ("MAIL_URL", "smtp://cleo:12#hunter2@localhost"),
        ("MAIL_URL", "resend://re_abc/hunter2"),
        ("MAIL_FROM", "Postroom"),
        ("MAIL_FROM", "a@b@c"),
        ("PUBLIC_URL", "books.example.com"),
        ("TASK_THREADS", "0"),
        ("WEB_THREADS", "1"),
        ("SQLITE_SYNCHRONOUS", "OFF"),
        ("MAX_JOB_BYTES", "1e6"),
        ("LOG_LEVEL", "loud"),
        ("BEHIND_PROXY", "yes"),
        ("TRUSTED_HOSTS", "https://books.example.com"),
        ("TRUSTED_HOSTS", "a.example,,b.example"),
        ("TRUSTED_HOSTS", "a b.example"),
        ("HOST", "0.0.0.0\tx"),
    ],
)
def test_a_wrong_value_is_refused_by_the_variables_name(variable: str, text: str) -> None:
    with pytest.raises(SettingError, match=rf"^{variable} is .*, expected ") as refused:
        Settings.read({variable: text})
    assert refused.value.variable == variable
    assert "hunter2" not in str(refused.value)


def test_replit_is_recognised() -> None:
    published = {"REPL_ID": "1", "REPLIT_DEPLOYMENT": "1", "REPLIT_DOMAINS": "books.replit.app,other.example"}
    settings = Settings.read(published)
    assert (settings.environment, settings.behind_proxy) == ("production", 1)
    assert settings.public_url == "https://books.replit.app"
    assert settings.data_dir == PROJECT_DIR / "data" / "production"


@pytest.mark.parametrize(
    ("environ", "in_frame"),
    [
        ({}, False),
        ({"REPL_ID": "1"}, True),
        ({"REPL_ID": "1", "IN_FRAME": "0"}, False),
        ({"REPL_ID": "1", "REPLIT_DEPLOYMENT": "1"}, False),
        ({"REPL_ID": "1", "REPLIT_DEPLOYMENT": "1", "IN_FRAME": "1"}, True),
        ({"SPACE_ID": "cleo/books"}, True),
    ],
)
def test_a_host_that_shows_the_site_in_a_frame_is_recognised(environ: dict[str, str], in_frame: bool) -> None:
    assert Settings.read(environ).in_frame is in_frame


@pytest.mark.parametrize(
    ("environ", "proxies", "public_url"),
    [
        ({"RENDER": "true", "RENDER_EXTERNAL_HOSTNAME": "b.onrender.com"}, 2, "https://b.onrender.com"),
        ({"RENDER": "true", "PUBLIC_URL": "https://b.example"}, 2, "https://b.example"),
        ({"RAILWAY_ENVIRONMENT_NAME": "x", "RAILWAY_PUBLIC_DOMAIN": "b.example"}, 1, "https://b.example"),
        ({"FLY_APP_NAME": "books"}, 2, "https://books.fly.dev"),
        ({"SPACE_ID": "c/b", "SPACE_HOST": "c-b.hf.space"}, 1, "https://c-b.hf.space"),
        ({"DYNO": "web.1"}, 1, "http://localhost:5000"),
        ({"DYNO": "web.1", "BEHIND_PROXY": "0"}, 0, "http://localhost:5000"),
        ({"REPL_ID": "1", "REPLIT_DEV_DOMAIN": "x.replit.dev"}, 1, "https://x.replit.dev"),
        ({"CODESPACE_NAME": "owl-4", "PORT": "8000"}, 0, "https://owl-4-8000.app.github.dev"),
        ({}, 0, "http://localhost:5000"),
    ],
)
def test_hosts_behind_a_proxy_are_recognised(environ: dict[str, str], proxies: int, public_url: str) -> None:
    settings = Settings.read(environ)
    assert (settings.behind_proxy, settings.public_url) == (proxies, public_url)


@pytest.mark.parametrize("variable", ["SECRET_KEY", "ADMIN_TOKEN"])
def test_a_secret_that_can_be_guessed_is_refused_in_production(variable: str) -> None:
    for production in ({"APP_ENV": "production"}, {"REPLIT_DEPLOYMENT": "1"}):
        with pytest.raises(SettingError, match=f"^{variable} .*16 characters or more") as refused:
            Settings.read(production | {variable: "hunter2-hunter2"})
        assert "hunter2" not in str(refused.value)
        assert getattr(Settings.read(production | {variable: "h" * 16}), variable.lower()) == "h" * 16
    assert getattr(Settings.read({variable: "short"}), variable.lower()) == "short"


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("TASK_THREAD", "TASK_THREADS"), ("TASKS_THREADS", "TASK_THREADS"), ("task_threads", "TASK_THREADS"),
        ("MAILURL", "MAIL_URL"), ("PUBLIC_URI", "PUBLIC_URL"), ("BEHIND_PROXIES", "BEHIND_PROXY"),
        ("RATELIMIT_ENABLE", "RATELIMIT_ENABLED"), ("TRUSTED_HOST", "TRUSTED_HOSTS"),
    ],
)  # fmt: skip
def test_a_variable_that_looks_like_a_setting_is_named_with_it(variable: str, meant: str) -> None:
    assert misspelt({variable: "1", "PATH": "/bin"}, VARIABLES) == [(variable, meant)]


def test_variables_of_others_are_left_alone() -> None:
    others = [
        "HOSTNAME", "HOSTTYPE", "POST", "SMTP_PORT", "MAIL", "MAIL_HOST", "APP_NAME", "XDG_DATA_DIRS",
        "DATABASE_URL", "DJANGO_SECRET_KEY", "SECRET_KEY_BASE", "LOGNAME", "RENDER_EXTERNAL_URL",
        "RAILWAY_PUBLIC_DOMAIN", "FLY_APP_NAME", "REPL_ID", "WEB_CONCURRENCY", "PORT_8080", "SESSION_SECRET",
    ]  # fmt: skip
    assert misspelt([*others, *VARIABLES], VARIABLES) == []


def test_a_variable_overrules_what_replit_suggests() -> None:
    settings = Settings.read({"REPL_ID": "1", "REPLIT_DEPLOYMENT": "1", "APP_ENV": "development"})
    assert settings.environment == "development"


def test_secrets_are_not_shown_by_repr() -> None:
    shown = repr(Settings.read({"SECRET_KEY": "s3cret", "ADMIN_TOKEN": "t0ken"}))
    assert "s3cret" not in shown
    assert "t0ken" not in shown


def test_every_setting_says_its_variable_and_meaning() -> None:
    variables = [setting.metadata["variable"] for setting in fields(Settings)]
    assert len(set(variables)) == len(variables)
    assert all(setting.metadata["meaning"] for setting in fields(Settings))
    assert set(SECRETS) <= set(variables)
