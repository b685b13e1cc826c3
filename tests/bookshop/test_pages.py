"""The first page with its two forms, the error pages, the headers of every page."""

from __future__ import annotations

import dataclasses
import html
import re
from urllib.parse import urlsplit

import pytest

import tasks
from app.bookshop import books as catalogue
from app.kit.database.file import database
from app.kit.engine.jobs import job as jobs
from app.kit.errors import DatabaseBusyError, DatabaseUnusableError, QueueFullError
from tests.kit.forms import hidden_fields

BOOK = {"title": "A Parrot at the Counter", "author": "Cleo Finch", "genre": "Mystery"}
READER = {"email": "cleo@example.com", "genre": "Mystery"}


def text_of(response):
    return html.unescape(response.get_data(as_text=True))


def follow(client, response):
    assert response.status_code == 303
    return client.get(response.location)


def test_the_first_page_shows_books_and_explains_itself(client):
    page = text_of(client.get("/"))
    assert "Retry, Said the Moon" in page
    sentences = re.findall(r"<li>\s*(.*?)</li>", page.split('id="explained"')[1].split("</ol>")[0], re.DOTALL)
    assert [sentence.count(".") for sentence in sentences] == [1, 1, 1]
    assert ["demonstration" in sentences[0], "Subscribe" in sentences[1], "job" in sentences[2]] == [True] * 3
    for address in ("/inbox", "/desk"):
        assert f'href="{address}"' in page.split('id="explained"')[1].split("</ol>")[0]


def test_the_first_page_needs_no_cookie(client):
    assert "Set-Cookie" not in client.get("/").headers


def test_adding_a_book_leads_to_its_job_and_to_the_inbox(client):
    response = client.submit("/books", BOOK)
    page = text_of(follow(client, response))
    assert "A Parrot at the Counter is on the shelf" in page.replace("</strong>", "").replace("<strong>", "")
    assert 'href="/inbox"' in page
    job = urlsplit(response.location).query.rpartition("job=")[2]
    assert f'href="/jobs/{job}"' in page
    assert client.get(f"/jobs/{job}").status_code == 200


def test_the_notice_says_how_many_readers_get_a_mail(client, subscribe):
    assert "Nobody is subscribed to Mystery yet" in text_of(follow(client, client.submit("/books", BOOK)))
    client.submit("/subscriptions", READER)
    assert "Nobody is subscribed to Mystery yet" in text_of(follow(client, client.submit("/books", BOOK)))
    subscribe("cleo@example.com", "Mystery")
    assert "1 reader" in text_of(follow(client, client.submit("/books", BOOK)))


@pytest.mark.parametrize("job", ["", "/evil", "../../evil", "//evil.example.com", "<script>"])
def test_nobody_can_put_an_address_into_the_notice_by_a_link(client, job):
    page = text_of(client.get("/", query_string={"added": 1, "job": job}))
    assert 'id="notice"' in page
    assert "See the job" not in page


def test_after_subscribing_the_page_says_that_a_mail_has_to_be_confirmed(client):
    page = text_of(follow(client, client.submit("/subscriptions", READER)))
    assert "A mail is on its way" in page
    assert '<p class="links"><a href="/inbox">' in page


@pytest.mark.parametrize(
    "query",
    [
        "added=999",
        "added=x",
        "added=99999999999999999999",
        "subscribed=<b>You+won",
        "job=/evil",
        "filled=<b>You+won",
    ],
)
def test_nobody_can_put_a_notice_on_the_page_by_a_link(client, query):
    response = client.get(f"/?{query}")
    assert response.status_code == 200
    assert 'id="notice"' not in text_of(response)


@pytest.mark.parametrize("query", ["added=2", "filled=Mystery", "subscribed=Mystery"])
def test_how_many_readers_there_are_is_told_to_nobody_who_may_not_write_to_them(app, subscribe, query):
    for number in range(7):
        subscribe(f"reader{number}@example.com", "Mystery")
    app.extensions["settings"] = dataclasses.replace(app.extensions["settings"], environment="production")
    stranger, operator = app.test_client(), app.test_client()
    operator.sign_in()
    assert "7 readers" not in text_of(stranger.get(f"/?{query}"))
    assert ("7 readers" in text_of(operator.get(f"/?{query}"))) == ("subscribed" not in query)


def test_the_notice_of_a_new_book_follows_its_job_to_the_end(client, subscribe, run_jobs):
    subscribe("cleo@example.com", "Mystery")
    page = text_of(follow(client, client.submit("/books", BOOK)))
    (live_url,) = re.findall('data-live="([^"]+)"', page)
    assert '<script type="module" src="/static/kit/live.js">' in page
    run_jobs()
    part = text_of(client.get(live_url))
    assert 'data-state="done"' in part
    assert "1 of 1: readers of Mystery have their mail queued" in part
    assert 'href="/inbox"' in part
    assert "data-live" not in part


def test_made_up_readers_are_subscribed_once_each_and_cannot_exist(client):
    page = client.get("/").get_data(as_text=True)
    fields = hidden_fields(page, "/subscriptions") | {"genre": "Poetry"}
    for _ in range(2):
        page = text_of(follow(client, client.post("/made-up-readers", data=fields)))
        assert "Poetry has 300 readers now" in page
    readers = catalogue.subscribers("Poetry")
    assert len({reader.email for reader in readers}) == len(readers) == 300
    assert all(reader.email.endswith("@example.com") for reader in readers)


def test_made_up_readers_need_a_genre(client):
    fields = hidden_fields(client.get("/").get_data(as_text=True), "/subscriptions")
    answer = client.post("/made-up-readers", data=fields | {"genre": "Wizardry"})
    assert answer.status_code == 400
    assert 'id="subscribe-genre-error"' in text_of(answer)


def test_selling_a_book_leads_to_the_best_sellers_which_count_it_in_a_batch(client, run_jobs):
    response = client.submit("/books/3/sales")
    assert response.location.endswith("#best-sellers")
    page = text_of(follow(client, response))
    assert "It is counted with the other sales of these 5 seconds" in page
    (live_url,) = re.findall('data-live="([^"]+)"', page)
    later = tasks.huey.now() + 5
    database.write(lambda connection: jobs.promote(connection, later))
    run_jobs()
    part = text_of(client.get(live_url))
    assert "Your sale is counted." in part
    assert "(1 sold)" in part
    assert "data-live" not in part


@pytest.mark.parametrize("sold", ["", "x", "/evil", "7079719c-da36-438b-a093-ab3adbdb0319"])
def test_a_sale_that_nobody_made_is_not_shown(client, sold):
    assert 'id="sale" role="status">Counted every 5 seconds' in text_of(
        client.get("/", query_string={"sold": sold})
    )
    assert client.get("/best-sellers/live", query_string={"sold": sold}).status_code == 404


@pytest.fixture
def open_to_the_world(app):
    """Let mails go out through a mail server, so that only the operator may change what is sold."""
    settings = app.extensions["settings"]
    app.extensions["settings"] = dataclasses.replace(settings, mail_url="smtp+plain://localhost:2525")


@pytest.mark.usefixtures("open_to_the_world")
def test_a_stranger_is_shown_no_form_that_would_be_refused(client, operator):
    page = text_of(client.get("/"))
    for action in ("/books", "/made-up-readers", "/books/3/sales"):
        assert f'action="{action}"' not in page
        answer = client.post(action, data=hidden_fields(page, "/subscriptions") | BOOK)
        assert answer.status_code == 401
    assert 'href="/sign-in?next=/"' in page
    page = text_of(operator.get("/"))
    assert 'action="/books"' in page
    assert "made-up" not in page
    assert catalogue.find_books(q="parrot") == []


def test_the_desk_is_named_only_to_who_may_enter(client, operator):
    assert '<a href="/desk">Desk</a>' in text_of(operator.get("/"))
    page = text_of(client.get("/"))
    assert '<a href="/desk">Desk</a>' not in page
    assert '<a href="/sign-in">Operator: sign in</a>' in page


def test_no_two_elements_of_a_page_share_an_id(client, operator, run_jobs):
    for who in (client, operator):
        added = who.submit("/books", BOOK).location
        uuid = added.rpartition("job=")[2]
        for address in ("/", added, f"/jobs/{uuid}", "/inbox", "/sign-in", "/nowhere"):
            ids = re.findall(r'\sid="([^"]+)"', text_of(who.get(address)))
            assert len(ids) == len(set(ids)), address


def test_every_label_names_a_field(client):
    page = text_of(client.get("/"))
    fields = set(re.findall(r'<(?:input|select|progress) id="([^"]+)"', page))
    labels = re.findall(r'<label[^>]* for="([^"]+)"', page)
    assert sorted(labels) == sorted(fields)


@pytest.mark.parametrize("field", ["title", "author", "genre"])
def test_a_refused_book_comes_back_as_it_was_typed(client, field):
    response = client.submit("/books", BOOK | {field: ""})
    page = text_of(response)
    assert response.status_code == 400
    assert f'aria-describedby="add-{field}-error"' in page
    assert f'id="add-{field}-error"' in page
    for name in {"title", "author"} - {field}:
        assert f'value="{BOOK[name]}"' in page
    assert ("<option selected>Mystery</option>" in page) == (field != "genre")


def test_a_refused_subscription_comes_back_as_it_was_typed(client):
    response = client.submit("/subscriptions", READER | {"email": "cleo@"})
    page = text_of(response)
    assert response.status_code == 400
    assert 'value="cleo@"' in page
    assert 'id="subscribe-email-error"' in page


def test_a_form_without_any_field_is_refused_not_broken(client):
    assert client.post("/books").status_code == 400
    assert client.post("/subscriptions").status_code == 400


def test_searching_shows_what_fits_and_keeps_the_question(client):
    page = text_of(client.get("/", query_string={"q": "soup", "genre": "Cookery"}))
    assert "Soup for the Night Shift" in page
    assert "Retry, Said the Moon" not in page
    assert 'value="soup"' in page


def test_a_search_that_fits_nothing_says_so(client):
    assert "No book fits" in text_of(client.get("/?q=*"))


def test_older_books_are_a_link_away(client):
    for number in range(45):
        catalogue.add_book(f"Volume {number}", "Cleo Finch", "Mystery")
    oldest_shown = catalogue.find_books(limit=50)[-1]
    assert f'href="/?before={oldest_shown.id}"' in text_of(client.get("/"))
    older = text_of(client.get(f"/?before={oldest_shown.id}"))
    assert "Soup for the Night Shift" in older
    assert "Volume" not in older


@pytest.mark.parametrize("before", ["x", "0", "-1", str(2**63)])
def test_a_page_number_that_cannot_be_is_refused(client, before):
    assert client.get(f"/?before={before}").status_code == 400


@pytest.mark.parametrize("field", ["title", "author"])
def test_markup_in_a_book_is_shown_as_text(client, field):
    client.submit("/books", BOOK | {field: "<script>alert(1)</script>"})
    page = client.get("/").get_data(as_text=True)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page


@pytest.mark.parametrize(
    ("address", "form"),
    [("/books", BOOK | {"title": '"><script>', "genre": ""}), ("/subscriptions", {"email": '"><script>'})],
)
def test_markup_in_a_refused_form_is_shown_as_text(client, address, form):
    page = client.submit(address, form).get_data(as_text=True)
    assert "&#34;&gt;&lt;script&gt;" in page
    assert "<script" not in page


def test_markup_in_a_search_is_shown_as_text(client):
    assert "<script" not in client.get("/?q=%22%3E%3Cscript%3E&genre=%3Cscript%3E").get_data(as_text=True)


def test_an_unknown_address_gets_a_page(client):
    response = client.get("/nowhere")
    assert response.status_code == 404
    assert "There is nothing at this address" in text_of(response)


def test_a_wrong_method_gets_a_page_that_names_the_right_one(client):
    response = client.get("/books")
    assert response.status_code == 405
    assert "POST" in response.headers["Allow"]


def test_a_form_that_is_too_large_is_refused(client):
    assert client.submit("/books", BOOK | {"title": "x" * 2_000_000}).status_code == 413


def test_a_full_queue_refuses_the_book_and_says_when_to_come_again(client, monkeypatch):
    monkeypatch.setattr(
        "app.bookshop.book_pages.alert_subscribers", raises(QueueFullError("The queue is full."))
    )
    response = client.submit("/books", BOOK)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert "The queue is full." in text_of(response)
    assert catalogue.find_books(q="parrot") == []


def test_a_busy_database_says_when_to_come_again(client, monkeypatch):
    monkeypatch.setattr("app.bookshop.books.find_books", raises(DatabaseBusyError("The database is busy.")))
    response = client.get("/")
    assert response.status_code == 503
    assert "Retry-After" in response.headers


def test_an_error_of_ours_is_logged_and_not_shown(client, monkeypatch, caplog):
    monkeypatch.setattr(
        "app.bookshop.books.find_books", raises(DatabaseUnusableError("postroom.db is damaged"))
    )
    response = client.get("/")
    assert response.status_code == 503
    assert "postroom.db" not in text_of(response)
    assert "postroom.db is damaged" in caplog.text


def test_an_unexpected_error_is_logged_with_its_trace_and_not_shown(app, client, monkeypatch, caplog):
    app.config["PROPAGATE_EXCEPTIONS"] = False
    monkeypatch.setattr("app.bookshop.books.find_books", raises(RuntimeError("the secret is 42")))
    response = client.get("/")
    assert response.status_code == 500
    assert "secret" not in text_of(response)
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    "address", ["/", "/nowhere", "/api/books", "/api/nowhere", "/up", "/static/kit/site.css"]
)
def test_every_answer_carries_the_headers_that_keep_it_safe(client, address):
    response = client.get(address)
    response.close()
    headers = response.headers
    assert headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "X-Frame-Options" not in headers


def test_the_page_holds_nothing_that_its_policy_would_block(client):
    page = client.get("/").get_data(as_text=True)
    for forbidden in ("<style", "<script", " style=", "http://", "https://"):
        assert forbidden not in page


@pytest.mark.parametrize("address", ["/favicon.ico", "/static/kit/favicon.svg"])
def test_the_icon_is_there(client, address):
    response = client.get(address)
    assert response.status_code == 200
    assert response.mimetype == "image/svg+xml"
    response.close()


def raises(error):
    def broken(*_args, **_kwargs):
        raise error

    return broken
