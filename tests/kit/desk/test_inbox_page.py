"""The built-in inbox as pages and as JSON."""

from __future__ import annotations

import dataclasses
import html
import re
from datetime import UTC, datetime

import pytest

from app.bookshop import books as catalogue
from app.kit.mail.attachments import Attachment
from app.kit.mail.inbox import InboxEmail
from app.kit.mail.message import MailingList
from app.kit.mail.sending import send_email

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
        "app.kit.mail.inbox.mails",
        lambda limit=50, before_id=None: [m for m in letters if not before_id or m.id < before_id][:limit],
    )
    monkeypatch.setattr("app.kit.mail.inbox.mail", lambda i: next((m for m in letters if m.id == i), None))
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
    client.submit("/books", {"title": "A Parrot", "author": "Ada Finch", "genre": "Mystery"})
    run_jobs()
    [email] = client.get("/api/inbox").json["emails"]
    assert email["to"] == "cleo@example.com"
    assert "A Parrot" in email["text"]
    assert html.escape(email["subject"]) in page_of(client, "/inbox")
    for view in ("text", "html", "headers", "source"):
        page_of(client, f"/inbox/{email['id']}?view={view}")


def test_the_link_to_confirm_works_by_whatever_address_the_site_was_reached(client, run_jobs):
    client.submit("/subscriptions", {"email": "cleo@example.com", "genre": "Mystery"})
    run_jobs()
    [email] = client.get("/api/inbox").json["emails"]
    assert "http://books.test/confirm/" in email["text"]
    (in_text,) = re.findall('href="(/confirm/[^"]+)"', page_of(client, f"/inbox/{email['id']}?view=text"))
    (in_html,) = re.findall('href="(/confirm/[^"]+)"', page_of(client, f"/inbox/{email['id']}/html"))
    assert in_text == in_html
    assert "Is that what you want?" in page_of(client, in_text)


def test_a_list_that_is_waiting_for_mail_asks_for_it_until_all_is_there(client, run_jobs):
    client.submit("/subscriptions", {"email": "cleo@example.com", "genre": "Mystery"})
    page = page_of(client, "/inbox")
    assert "1 more is on the way." in page
    (live_url,) = map(html.unescape, re.findall('data-live="([^"]+)"', page))
    nothing_new = client.get(live_url)
    assert (nothing_new.status_code, nothing_new.headers["Retry-After"]) == (204, "1")
    run_jobs()
    part = page_of(client, live_url)
    assert "All mails have arrived" in part
    assert "Please confirm" in part
    assert "data-live" not in part


def test_an_empty_inbox_says_what_to_do(client):
    page = page_of(client, "/inbox")
    assert "No mail yet" in page
    assert '<a href="/">Do something that sends a mail</a>' in page
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
    assert '<a href="http://localhost:5000/" rel="noopener noreferrer">http://localhost:5000/</a>' in page


def test_a_mail_is_shown_with_its_headers(client, letters):
    page = page_of(client, "/inbox/7?view=headers")
    assert '<th scope="row">From</th><td>Postroom &lt;postroom@localhost&gt;</td>' in page


def test_a_mail_is_shown_as_its_source(client, letters):
    assert "From: Postroom &lt;postroom@localhost&gt;" in page_of(client, "/inbox/7?view=source")


@pytest.mark.parametrize("view", ["", "html", "nonsense"])
def test_a_mail_without_html_is_shown_as_text(client, letters, view):
    assert "Hello &lt;b&gt;Cleo" in page_of(client, f"/inbox/5?view={view}")


@pytest.mark.parametrize(
    "address",
    [
        "/inbox/8",
        "/inbox/8/html",
        "/inbox/5/html",
        "/inbox/x",
        "/inbox/-1",
        f"/inbox/{2**63}",
        "/inbox/8/files/0",
        "/inbox/7/files/0",
        "/inbox/7/files/-1",
        "/inbox/7/files/1000",
        "/inbox/7/files/x",
    ],
)
def test_a_mail_that_is_not_there_is_not_found(client, letters, address):
    assert client.get(address).status_code == 404


ADDRESSES = ["/inbox", "/inbox/live", "/inbox/7", "/inbox/7/html", "/inbox/7/files/0", "/api/inbox"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_the_inbox_is_closed_while_mails_go_out_for_real(client, letters, mail_server, address):
    response = client.get(address)
    assert response.status_code == 404
    assert "MAIL_URL" in response.get_data(as_text=True)


def test_no_page_leads_to_a_closed_inbox(client, mail_server):
    assert "/inbox" not in page_of(client, "/")


@pytest.fixture
def production(app):
    """Publish the site, with the built-in inbox still on."""
    settings = app.extensions["settings"]
    app.extensions["settings"] = dataclasses.replace(settings, environment="production")


@pytest.mark.usefixtures("production")
@pytest.mark.parametrize("address", ADDRESSES)
def test_in_production_the_inbox_is_the_operators(client, operator, letters, address):
    answer = client.get(address)
    if address.startswith("/api/"):
        assert answer.status_code == 401
    else:
        assert (answer.status_code, answer.location.split("?")[0]) == (303, "/sign-in")
    assert LETTER.to not in answer.get_data(as_text=True)
    assert operator.get(address).status_code == (404 if "files" in address else 200)


@pytest.mark.usefixtures("production")
def test_in_production_only_the_operator_is_led_to_the_inbox(client, operator):
    assert "/inbox" not in page_of(client, "/")
    assert 'href="/inbox"' in page_of(operator, "/")


# Attachments


@pytest.fixture
def with_files(app, tmp_path, outbox):
    """A mail with two files; the second has a name and a content that browsers must not believe."""
    plain, bad = tmp_path / "terms.txt", tmp_path / "evil.html"
    plain.write_bytes(b"yes\r\n" * 1000)
    bad.write_bytes(b"<script>alert(1)</script>")
    send_email(
        "cleo@example.com",
        "book_alert",
        attachments=[plain, Attachment(bad, 'Rechnung "März" 50%.html')],
        mailing_list=MailingList("news", "News", "http://books.test/unsubscribe/x"),
        book=catalogue.book(1),
    )
    return outbox[0].id


def test_a_mail_names_its_files_and_their_sizes(client, with_files):
    page = html.unescape(page_of(client, f"/inbox/{with_files}"))
    assert f'<a href="/inbox/{with_files}/files/0" download>terms.txt</a>' in page
    assert "4.9 KiB" in page
    assert "Rechnung" in page
    assert "25 bytes" in page


def test_a_file_is_saved_and_never_shown(client, with_files):
    answer = client.get(f"/inbox/{with_files}/files/1")
    assert answer.get_data() == b"<script>alert(1)</script>"
    assert answer.mimetype == "application/octet-stream"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"].startswith("sandbox")
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="Rechnung')
    assert "filename*=UTF-8''Rechnung%20_M%C3%A4rz_%2050%25.html" in answer.headers["Content-Disposition"]


def test_a_file_is_the_same_to_the_byte(client, with_files):
    assert client.get(f"/inbox/{with_files}/files/0").get_data() == b"yes\r\n" * 1000


def test_a_file_inside_a_file_can_be_saved(client, letters):
    source = (
        b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n"
        b"Content-Type: text/plain\r\n\r\nHello\r\n--x\r\n"
        b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nInner text\r\n--x--\r\n"
    )
    letters[:] = [dataclasses.replace(LETTER, source=source)]
    assert b"Inner text" in client.get("/inbox/7/files/0").get_data()
