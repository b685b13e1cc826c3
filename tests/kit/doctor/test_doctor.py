"""The doctor: each check holds where it should, and is made to fail by the real thing where there is one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from app.kit.doctor import doctor
from app.kit.mail import transports
from app.kit.mail.smtp.exchange import Limits
from app.kit.mail.smtp.transport import SmtpTransport
from app.settings import Settings
from tests.kit.resend_server import ResendServer
from tests.kit.smtp_sink import SmtpSink

PASSWORD = "Pass_4711"


@pytest.fixture
def published(settings: Settings) -> Settings:
    """Settings of a published site about which nothing can be said."""
    return replace(
        settings,
        environment="production",
        public_url="https://books.example",
        mail_url=f"smtp://me:{PASSWORD}@mail.example",
        mail_from="Books <post@books.example>",
    )


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


# The machine


def test_sqlite_that_is_too_old_is_wrong() -> None:
    assert doctor.check_versions().state == "ok"
    assert doctor.check_versions((3, 36, 9)).state == "wrong"
    assert "3.36.9" in doctor.check_versions((3, 36, 9)).sentence


@pytest.mark.parametrize(
    ("environment", "environ", "state"),
    [
        ("development", {}, "ok"),
        ("production", {"RENDER": "true"}, "ok"),
        ("development", {"RENDER": "true"}, "warning"),
        ("development", {"REPL_ID": "a workspace"}, "ok"),
        ("development", {"REPLIT_DEPLOYMENT": "1"}, "warning"),
    ],
)
def test_published_site_should_be_in_production(
    settings: Settings, environment: str, environ: dict[str, str], state: str
) -> None:
    check = doctor.check_environment(replace(settings, environment=environment), environ)
    assert check.state == state
    assert environment in check.sentence


# The settings


@pytest.mark.parametrize(
    ("url", "state"),
    [
        ("https://books.example", "ok"),
        ("http://localhost:5000", "warning"),
        ("http://127.0.0.1", "warning"),
        ("http://[::1]:5000", "warning"),
        ("http://0.0.0.0:5000", "warning"),
    ],
)
def test_links_of_a_published_site_should_lead_to_it(
    settings: Settings, published: Settings, url: str, state: str
) -> None:
    assert doctor.check_public_url(replace(published, public_url=url)).state == state
    assert doctor.check_public_url(replace(settings, public_url=url)).state == "ok"


@pytest.mark.parametrize(
    "variable", ["RENDER", "RAILWAY_ENVIRONMENT_NAME", "FLY_APP_NAME", "SPACE_ID", "DYNO"]
)
def test_visitors_who_all_look_like_the_hosts_proxy_are_named(settings: Settings, variable: str) -> None:
    environ = {variable: "1"}
    check = doctor.check_visitors(replace(settings, behind_proxy=0), environ)
    assert (check.state, "BEHIND_PROXY" in check.sentence) == ("warning", True)
    assert doctor.check_visitors(Settings.read(environ), environ).state == "ok"
    assert doctor.check_visitors(settings, {}).state == "ok"


def test_a_setting_that_is_misspelt_is_named_at_the_start(settings: Settings) -> None:
    (check,) = [one for one in doctor.glance(settings, {"TASK_THREAD": "9"}) if one.name == "settings"]
    assert check.state == "warning"
    assert {"TASK_THREAD", "TASK_THREADS"} <= set(check.sentence.split())


@pytest.mark.parametrize(
    ("environ", "unset"),
    [
        ({}, {"SECRET_KEY", "ADMIN_TOKEN"}),
        ({"SECRET_KEY": PASSWORD, "ADMIN_TOKEN": " "}, {"ADMIN_TOKEN"}),
        ({"ADMIN_TOKEN": PASSWORD}, {"SECRET_KEY"}),
        ({"SECRET_KEY": PASSWORD, "ADMIN_TOKEN": PASSWORD}, set()),
    ],
)
def test_secrets_of_a_published_site_should_be_set(
    settings: Settings, published: Settings, environ: dict[str, str], unset: set[str]
) -> None:
    check = doctor.check_secrets(published, environ)
    assert check.state == ("warning" if unset else "ok")
    assert {name for name in ("SECRET_KEY", "ADMIN_TOKEN") if name in check.sentence} == unset
    assert PASSWORD not in check.sentence
    assert doctor.check_secrets(settings, environ).state == "ok"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"mail_url": ""}, "MAIL_URL is not set"),
        ({"mail_url": "smtp+plain://mail.example"}, "in the clear"),
        ({"mail_url": "smtp+plain://localhost"}, ""),
        ({"mail_from": "Postroom <postroom@localhost>"}, "MAIL_FROM is postroom@localhost"),
        ({"mail_url": "smtp://me:word@mail.example:465"}, "port 465 usually wants smtps://"),
        ({"mail_url": "smtps://me:word@mail.example:587"}, "port 587 usually wants smtp://"),
        ({"mail_url": "smtps://me:word@mail.example:465"}, ""),
        ({"mail_url": "smtp://me:word@mail.example:2525"}, ""),
        ({"mail_url": "resend://re_key"}, "MAIL_PER_MINUTE=100"),
        ({"mail_url": "resend://re_key", "mail_per_minute": 60}, ""),
        ({"environment": "development", "mail_url": "", "mail_from": "a@localhost"}, ""),
    ],
)
def test_settings_of_mail_should_go_together(
    published: Settings, change: dict[str, object], words: str
) -> None:
    check = doctor.check_mail_settings(replace(published, **change))  # type: ignore[arg-type]
    assert check.state == ("warning" if words else "ok"), check
    assert words in check.sentence


# The mail server


def test_mail_server_that_answers_is_ok(settings: Settings) -> None:
    with SmtpSink() as sink, ResendServer() as resend:
        for url in ("", sink.url, resend.url):
            mail_from = "Books <post@books.example>"
            check = doctor.check_mail(replace(settings, mail_url=url, mail_from=mail_from), {})
            assert check.state == "ok", check
        assert sink.messages == []
        assert resend.emails == []


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mail server counts as another machine."""
    monkeypatch.setattr(doctor, "_is_local", lambda _host: False)


@pytest.mark.usefixtures("far")
def test_mail_server_that_says_nothing_ends_in_time_and_blocked_ports_are_named(
    settings: Settings, silent: socket.socket
) -> None:
    settings = replace(settings, mail_url=f"smtp+plain://127.0.0.1:{silent.getsockname()[1]}")
    check = doctor.check_mail(settings, {}, limit_s=0.1)
    assert check.state == "wrong"
    assert check.sentence.startswith("no answer within 0.1 s.")
    for words in ("Render", "Railway", "Hetzner", "DigitalOcean", "587", "resend://", "HTTPS"):
        assert words in check.sentence


@pytest.mark.usefixtures("far")
def test_host_that_blocks_smtp_is_told_its_own_name(settings: Settings, silent: socket.socket) -> None:
    settings = replace(settings, mail_url=f"smtp://me:{PASSWORD}@127.0.0.1:{silent.getsockname()[1]}")
    check = doctor.check_mail(settings, {"RENDER": "true"}, limit_s=0.1)
    assert "This is Render: its free web services block ports 25, 465 and 587." in check.sentence
    assert "Railway" not in check.sentence
    assert PASSWORD not in check.sentence


@pytest.mark.parametrize("scheme", ["smtp://", "smtp+plain://", "resend://re_key@"])
def test_host_that_does_not_exist_is_no_blocked_port(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    def fail(*_args: object, **_more: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    check = doctor.check_mail(replace(settings, mail_url=f"{scheme}nohost.invalid"), {})
    assert check.state == "wrong"
    assert "Is the host in MAIL_URL written right?" in check.sentence
    assert "Hosts that block SMTP" not in check.sentence


def test_port_that_waits_for_tls_is_no_blocked_port_and_is_given_up_when_sending_would(
    settings: Settings, silent: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"smtp://127.0.0.1:{silent.getsockname()[1]}"
    patience = Limits(command_s=0.2)
    monkeypatch.setattr(doctor, "transport_for", lambda _: SmtpTransport(url, "post@example.com", patience))
    check = doctor.check_mail(replace(settings, mail_url=url), {})
    assert "nothing for 0.2 s" in check.sentence
    assert "wants smtps://" in check.sentence
    assert "Hosts that block SMTP" not in check.sentence


def test_port_that_does_not_speak_tls_is_told_from_one_that_is_blocked(settings: Settings) -> None:
    with SmtpSink() as sink:
        check = doctor.check_mail(replace(settings, mail_url=f"smtps://127.0.0.1:{sink.port}"), {})
    assert check.state == "wrong"
    assert "wants smtp://" in check.sentence
    assert "Hosts that block SMTP" not in check.sentence


def test_doctor_waits_longer_than_sending_does() -> None:
    limits = Limits()
    assert limits.connect_s + limits.command_s < doctor.MAIL_LIMIT_S


@pytest.mark.parametrize(("scheme", "advised"), [("smtp+plain://", True), ("resend://re_key@", False)])
@pytest.mark.usefixtures("far")
def test_port_that_refuses_is_wrong(settings: Settings, scheme: str, advised: bool) -> None:
    check = check_a_port_that_refuses(settings, scheme)
    assert ("Hosts that block SMTP" in check.sentence) == advised


def test_port_of_this_machine_is_blocked_by_nobody(settings: Settings) -> None:
    check = check_a_port_that_refuses(settings, "smtp+plain://")
    assert "Does the mail server run on this machine" in check.sentence
    assert "Hosts that block SMTP" not in check.sentence


def check_a_port_that_refuses(settings: Settings, scheme: str) -> doctor.Check:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"{scheme}127.0.0.1:{unused.getsockname()[1]}"
        check = doctor.check_mail(replace(settings, mail_url=url), {})
    assert check.state == "wrong"
    assert check.sentence.startswith("at connect: ")
    return check


def test_mail_server_that_refuses_is_wrong_and_no_port_is_to_blame(settings: Settings) -> None:
    with SmtpSink() as sink:
        sink.answer("connect", "554 5.7.1 go away")
        check = doctor.check_mail(replace(settings, mail_url=sink.url), {})
    assert check.state == "wrong"
    assert "go away" in check.sentence
    assert "Hosts that block SMTP" not in check.sentence
    with ResendServer() as resend:
        resend.key = "another"
        check = doctor.check_mail(replace(settings, mail_url=resend.url), {})
    assert "invalid_api_key" in check.sentence


def test_bug_in_a_transport_shows_no_password(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(self: transports.InboxTransport) -> str:
        raise ValueError(PASSWORD)

    monkeypatch.setattr(transports.InboxTransport, "probe", break_down)
    check = doctor.check_mail(settings, {})
    assert (check.state, check.sentence) == ("wrong", "the transport has a bug: ValueError.")


def test_url_that_cannot_be_used_is_wrong(settings: Settings) -> None:
    check = doctor.check_mail(replace(settings, mail_url="resend://re_key%0A"), {})
    assert check.state == "wrong"
    assert "MAIL_URL" in check.sentence
    assert "re_key" not in check.sentence


# All together


def test_report_prints_every_check_and_its_status_says_whether_something_is_wrong(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.report(settings, {}) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 14
    assert {line.split()[0] for line in lines} == {"ok"}
    settings.data_dir.touch()
    assert doctor.report(settings, {}) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines if not line.startswith("ok")] == ["wrong    data folder"]


def test_warning_is_no_failure(
    settings: Settings, published: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.report(replace(published, mail_url=""), {}) == 0
    assert "warning  secrets: " in capsys.readouterr().out


def test_glance_names_what_is_not_ok_and_asks_nobody(published: Settings, silent: socket.socket) -> None:
    url = f"smtp://me:{PASSWORD}@127.0.0.1:{silent.getsockname()[1]}"
    assert [check.name for check in doctor.glance(replace(published, mail_url=url), {})] == ["secrets"]
    silent.settimeout(0)
    with pytest.raises(BlockingIOError):
        silent.accept()
