"""The names the site answers to, in each place where it runs, and the paths that lead to no other site."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace

import pytest
from werkzeug.test import create_environ
from werkzeug.wrappers import Response

from app import create_app
from app.kit.web.own_site import own_path
from app.settings import Settings
from tests.kit.forms import Browser

EVERYWHERE = [
    "localhost", "localhost:5000", "LOCALHOST", "localhost.", "books.localhost:5000", "127.0.0.1", "127.0.0.1:5000",
    "192.0.2.7:8080", "[::1]", "[::1]:5000", "[2001:db8::1]", "[::ffff:192.0.2.1]:5000",
    socket.gethostname(), f"{socket.gethostname()}.local:5000",
]  # fmt: skip
NOWHERE = [
    "evil.example", "evil.example:5000", "localhost.evil.example", "evil-localhost", "evillocalhost",
    "127.0.0.1.evil.example", "127.1", "2130706433", "0x7f000001", "[1:2]", "[:::]", "books.test.evil.example",
    "xbooks.test", f"{socket.gethostname()}.evil.example", "xn--.example", "my_host", "evil.example.",
]  # fmt: skip
NO_HOSTS = [
    "localhost@evil.example", "localhost:5000@evil.example", "evil.example#localhost", "evil.example/localhost",
    "localhost evil.example", "localhost, evil.example", "localhost:x", "localhost:999999", "[::1", "::1",
    "[::1]evil.example", "localhost..", ".", "*", "", ":5000", "a" * 64, "a." * 130 + "example", "\xe4.example",
]  # fmt: skip


@pytest.fixture
def site(settings: Settings) -> Callable[..., Browser]:
    """A function that builds a client of a site that runs elsewhere, with an environment of the test's choice."""

    def build(**environ: str) -> Browser:
        environ = {"DATA_DIR": str(settings.data_dir), "PUBLIC_URL": "http://books.test:8000"} | environ
        app = create_app(Settings.read({name: text for name, text in environ.items() if text}))
        app.test_client_class = Browser
        return app.test_client()

    return build


def ask(client: Browser, host: str, path: str = "/api/inbox", method: str = "GET") -> Response:
    """Ask by whatever Host; the test client itself would refuse some."""
    environ = create_environ(path, method=method) | {"HTTP_HOST": host}
    return Response.from_app(client.application, environ)


@pytest.mark.parametrize("host", [*EVERYWHERE, "books.test", "BOOKS.test:8000", "books.test."])
def test_the_site_answers_under_its_own_names(client: Browser, host: str) -> None:
    assert ask(client, host).status_code == 200


@pytest.mark.parametrize("host", NOWHERE)
def test_under_other_names_it_says_how_to_allow_them_and_nothing_else(client: Browser, host: str) -> None:
    for path in ("/api/inbox", "/api/nowhere"):
        answer = ask(client, host, path)
        assert answer.status_code == 421
        assert f"TRUSTED_HOSTS={host.removesuffix(':5000').rstrip('.')}," in answer.json["error"]["message"]
        assert "PUBLIC_URL" in answer.json["error"]["message"]
    page = ask(client, host, "/", method="POST")
    assert page.status_code == 421
    assert "TRUSTED_HOSTS" in page.get_data(as_text=True)


@pytest.mark.parametrize("host", NO_HOSTS)
def test_what_names_no_host_is_refused_everywhere(client: Browser, host: str) -> None:
    for path in ("/api/inbox", "/", "/nowhere", "/desk", "/up", "/static/kit/site.css"):
        assert ask(client, host, path).status_code == 400


def test_no_guess_is_answered_under_another_name(client: Browser) -> None:
    token = client.application.extensions["settings"].admin_token
    told = [
        client.get("/", headers={"Host": "evil.example", "Authorization": f"Bearer {one}"}).data
        for one in ("wrong", token)
    ]
    assert told[0] == told[1]
    assert (
        client.get("/sign-in", query_string={"token": token}, headers={"Host": "evil.example"}).status_code
        == 421
    )


def test_the_page_that_refuses_a_name_has_its_style(client: Browser) -> None:
    with client.get("/static/kit/site.css", headers={"Host": "evil.example"}) as style:
        assert style.status_code == 200


def test_a_health_check_asks_by_whatever_name(client: Browser) -> None:
    assert ask(client, "healthcheck.example", "/up").status_code == 200


def test_a_request_without_any_name_is_no_browsers(client: Browser) -> None:
    assert client.get("/api/books", environ_overrides={"HTTP_HOST": ""}).status_code == 400
    environ = {"SERVER_NAME": "0.0.0.0", "SERVER_PORT": "5000", "HTTP_HOST": None}
    assert client.get("/api/books", environ_overrides=environ).status_code == 200


@pytest.mark.parametrize(
    ("environ", "ours", "others"),
    [
        (
            {"TRUSTED_HOSTS": "www.books.test, .example.org"},
            ["www.books.test", "a.b.example.org"],
            ["example.org"],
        ),
        ({"TRUSTED_HOSTS": "*"}, ["evil.example", "my_host"], ["xn--.example", "[1:2]", "[:]"]),
        ({"PUBLIC_URL": "https://b\xfccher.example"}, ["xn--bcher-kva.example"], ["books.test"]),
        ({"APP_ENV": "production"}, ["books.test", "localhost"], ["evil.example"]),
        (
            {
                "REPL_ID": "1",
                "REPLIT_DEV_DOMAIN": "x.kirk.example",
                "REPLIT_DOMAINS": "books.example,b.example",
            },
            ["x.kirk.example", "b.example", "8a-00.riker.replit.dev"],
            ["replit.dev.evil.example", "replit.dev"],
        ),
        ({"CODESPACE_NAME": "owl-4"}, ["owl-4-5000.app.github.dev", "localhost:5000"], ["owl-4.github.dev"]),
        ({"RENDER": "true"}, ["books.onrender.com"], ["onrender.com.evil.example"]),
        (
            {"RAILWAY_ENVIRONMENT_NAME": "x", "RAILWAY_PUBLIC_DOMAIN": "b.example"},
            ["b.example"],
            ["a.example"],
        ),
        ({"FLY_APP_NAME": "books"}, ["books.fly.dev"], ["books"]),
        ({"SPACE_ID": "cleo/books"}, ["cleo-books.hf.space"], ["huggingface.co"]),
        ({"DYNO": "web.1"}, ["books-1234.herokuapp.com"], ["heroku.com"]),
    ],
)
def test_names_are_added_by_the_settings_and_by_hosts_we_know(
    site: Callable[..., Browser], environ: dict[str, str], ours: list[str], others: list[str]
) -> None:
    client = site(**environ)
    assert {ask(client, host, "/").status_code for host in ours} == {200}
    assert {ask(client, host, "/").status_code for host in others} <= {421}


def test_a_machine_with_a_domain_in_its_name_answers_to_the_short_one_too(
    site: Callable[..., Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Cleos-Mac.lan")
    client = site()
    names = ("cleos-mac.lan", "cleos-mac", "cleos-mac.local:5000")
    assert {ask(client, host, "/").status_code for host in names} == {200}
    assert ask(client, "cleos-mac.evil.example", "/").status_code == 421


# Paths


@pytest.mark.parametrize(
    "prefix", ["//evil.example", "/\\evil.example", "https://evil.example", "evil", "/a//b", "/\n/b"]
)
def test_below_a_prefix_that_leads_elsewhere_no_link_does(client: Browser, prefix: str) -> None:
    for path in ("/", "/nowhere", "/sign-in", "/desk"):
        answer = client.get(path, environ_overrides={"SCRIPT_NAME": prefix})
        assert "evil" not in answer.text + answer.headers.get("Location", "")


def test_below_a_prefix_of_ours_links_have_it(client: Browser) -> None:
    assert 'href="/shop/sign-in"' in client.get("/", environ_overrides={"SCRIPT_NAME": "/shop"}).text


@pytest.mark.parametrize(
    "referrer",
    ["http://localhost//evil.example/x", "http://localhost/\\evil.example", "http://localhost/%2f%2fevil.example",
     "http://[", "http://a]b/", "http://evil.example@localhost//evil.example", "http://localhost"],
)  # fmt: skip
def test_the_way_back_to_the_form_leads_to_no_other_site(client: Browser, referrer: str) -> None:
    page = client.post("/books", data={"title": "x"}, headers={"Referer": referrer})
    assert page.status_code == 400
    assert "evil" not in page.text


@pytest.mark.parametrize(
    "path", [None, "", "//a", "/\\a", "a", "/a//b", "/%2fa", "/%255ca", "/\t/a", "/\x7f"]
)
def test_a_path_that_might_lead_to_another_site_is_none_of_ours(path: str | None) -> None:
    assert own_path(path) is None


def test_what_is_chosen_overrules_what_the_host_suggests(settings: Settings) -> None:
    assert replace(settings).trusted_hosts == ()
    chosen = Settings.read({"RENDER": "true", "TRUSTED_HOSTS": "a.example", "BEHIND_PROXY": "1"})
    assert (chosen.trusted_hosts, chosen.behind_proxy) == (("a.example",), 1)
