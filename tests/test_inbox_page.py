"""The built-in inbox as pages and as JSON."""

from __future__ import annotations

import dataclasses
import html
from datetime import UTC, datetime

import pytest

from app.mail.inbox import InboxEmail

LETTER = InboxEmail(
    id=7, to="cleo@example.com", subject="New in <Mystery>", text="Hello <b>Cleo</b>\nhttp://localhost:5000/",
    html="<html><head></head><body>Hello<script>alert(1)</script></body></html>",
    headers=[("From", "Postroom <postroom@localhost>"), ("To", "cleo@example.com")],
    source=b"From: Postroom <postroom@localhost>\r\n\r\nHello \xff",
    sent_at=datetime(2031, 5, 4, 9, 30, tzinfo=UTC),
)  # fmt: skip


@pytest.fixture
def letters(app, monkeypatch):
    """Put these mails into the inbox, newest first."""
    letters = [LETTER, dataclasses.replace(LETTER, id=5, subject="No HTML", html=None)]
    monkeypatch.setattr(
        "app.mail.inbox.mails",
        lambda limit=50, before_id=None: [m for m in letters if not before_id or m.id < before_id][:limit],
    )
    monkeypatch.setattr("app.mail.inbox.mail", lambda i: next((m for m in letters if m.id == i), None))
    return letters


@pytest.fixture
def mail_server(app):
    """Let mails go out through a mail server."""
    settings = app.extensions["settings"]
    app.extensions["settings"] = dataclasses.replace(settings, mail_url="smtp+plain://localhost:2525")


def page_of(client, address):
    response = client.get(address)
    assert response.status_code == 200
    return response.get_data(as_text=True)


def test_an_alert_lands_in_the_inbox(client, run_jobs, subscribe):
    subscribe("cleo@example.com", "Mystery")
    client.post("/books", data={"title": "A Parrot", "author": "Ada Finch", "genre": "Mystery"})
    run_jobs()
    [email] = client.get("/api/inbox").json["emails"]
    assert email["to"] == "cleo@example.com"
    assert "A Parrot" in email["text"]
    assert html.escape(email["subject"]) in page_of(client, "/inbox")
    for view in ("text", "html", "source"):
        page_of(client, f"/inbox/{email['id']}?view={view}")


def test_an_empty_inbox_says_what_to_do(client):
    assert "No mail yet" in page_of(client, "/inbox")
    assert client.get("/api/inbox").json == {"emails": []}


def test_the_inbox_as_json_is_newest_first_and_has_these_keys(client, letters):
    emails = client.get("/api/inbox").json["emails"]
    assert [email["id"] for email in emails] == [7, 5]
    assert list(emails[0]) == ["id", "to", "subject", "text", "html", "headers", "sent_at"]
    assert emails[0]["headers"]["To"] == "cleo@example.com"
    assert emails[0]["sent_at"] == "2031-05-04T09:30:00.000Z"


def test_older_mails_are_a_link_away(client, letters):
    letters[:] = [dataclasses.replace(LETTER, id=number) for number in range(60, 0, -1)]
    assert 'href="/inbox?before=11"' in page_of(client, "/inbox")
    assert [email["id"] for email in client.get("/api/inbox?before=11").json["emails"]] == list(
        range(10, 0, -1)
    )


def test_a_mail_is_shown_as_html_in_a_frame_of_its_own(client, letters):
    page = page_of(client, "/inbox/7")
    assert 'src="/inbox/7/html"' in page
    assert "allow-scripts" not in page
    assert "allow-same-origin" not in page
    assert "<script" not in page


def test_the_frame_runs_no_script_and_loads_nothing(client, letters):
    policy = client.get("/inbox/7/html").headers["Content-Security-Policy"]
    assert policy.startswith("sandbox")
    assert "default-src 'none'" in policy
    assert "script" not in policy
    assert "allow-same-origin" not in policy


def test_links_of_a_mail_open_beside_the_frame(client, letters):
    assert '<base target="_blank">' in page_of(client, "/inbox/7/html")


def test_a_mail_is_shown_as_text_with_its_links(client, letters):
    page = page_of(client, "/inbox/7?view=text")
    assert "Hello &lt;b&gt;Cleo&lt;/b&gt;" in page
    assert '<a href="http://localhost:5000/" rel="noopener">' in page


def test_a_mail_is_shown_as_its_source(client, letters):
    assert "From: Postroom &lt;postroom@localhost&gt;" in page_of(client, "/inbox/7?view=source")


@pytest.mark.parametrize("view", ["", "html", "nonsense"])
def test_a_mail_without_html_is_shown_as_text(client, letters, view):
    assert "Hello &lt;b&gt;Cleo" in page_of(client, f"/inbox/5?view={view}")


@pytest.mark.parametrize(
    "address", ["/inbox/8", "/inbox/8/html", "/inbox/5/html", "/inbox/x", "/inbox/-1", f"/inbox/{2**63}"]
)
def test_a_mail_that_is_not_there_is_not_found(client, letters, address):
    assert client.get(address).status_code == 404


@pytest.mark.parametrize("address", ["/inbox", "/inbox/7", "/inbox/7/html", "/api/inbox"])
def test_the_inbox_is_closed_while_mails_go_out_for_real(client, letters, mail_server, address):
    response = client.get(address)
    assert response.status_code == 404
    assert "MAIL_URL" in response.get_data(as_text=True)


def test_no_page_leads_to_a_closed_inbox(client, mail_server):
    assert "/inbox" not in page_of(client, "/")
