"""The built-in inbox: the mails that were sent while no mail server is set."""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, current_app, render_template, request, url_for

from app.kit.desk import mail as desk_mail, mail_parts
from app.kit.desk.linked_text import linked
from app.kit.errors import NotFoundError
from app.kit.mail import by_hand, inbox as mailbox
from app.kit.mail.inbox import InboxEmail
from app.kit.plain_text import printable
from app.kit.web import front_door
from app.kit.web.json_in import MAX_ID, number_in_query

PAGE_LENGTH = 50
LOOKS_AGAIN_S = 1
VIEWS = ("text", "html", "headers", "source")
# A mail may be written by anybody, so it runs no script, loads nothing and counts as another site.
MAIL_POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; "
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'"
)
# A file of a mail is saved, never shown: shown, it would count as a page of this site.
FILE_POLICY = "sandbox; default-src 'none'"

bp = Blueprint("inbox", __name__)
bp.add_app_template_filter(mail_parts.size_text)


def is_on() -> bool:
    """Say whether mails go to the built-in inbox."""
    return not current_app.extensions["settings"].mail_url


def is_open() -> bool:
    """Say whether who asks may read the built-in inbox: anybody while one tries things out, else the operator."""
    return is_on() and (front_door.anybody_may_change() or front_door.is_operator())


@bp.app_context_processor
def for_every_template() -> dict[str, Any]:
    """Tell templates whether to show links to the inbox."""
    return {"inbox_is_open": is_open()}


@bp.before_request
def must_be_on() -> None:
    """Answer 404 while mails go out for real.

    Raises: NotFoundError.
    """
    if not is_on():
        raise NotFoundError("The built-in inbox is off: mails go out through the server that MAIL_URL names.")


@bp.get("/inbox")
@front_door.operator_unless_trying_out
def mails() -> str:
    """List the mails, newest first."""
    return render_template("kit/inbox.html", **_list())


@bp.get("/inbox/live")
@front_door.operator_unless_trying_out
def mails_live() -> Response:
    """Answer live.js with the list if it differs from what was ?seen=, else with 204."""
    found = _list()
    if found["seen"] == request.args.get("seen"):
        answer = Response(status=HTTPStatus.NO_CONTENT)
    else:
        answer = Response(render_template("kit/inbox_live.html", **found))
    answer.headers.update({"Cache-Control": "no-store", "Retry-After": str(LOOKS_AGAIN_S)})
    return answer


@bp.get(f"/inbox/<int(max={MAX_ID}):email_id>")
@front_door.operator_unless_trying_out
def mail(email_id: int) -> str:
    """Show one mail as text, as HTML, its headers, or all of it as it went over the wire."""
    email = _email(email_id)
    view = request.args.get("view", "")
    if view not in VIEWS or (view == "html" and email.html is None):
        view = "text" if email.html is None else "html"
    return render_template(
        "kit/mail.html",
        email=email,
        view=view,
        text=linked(printable(email.text), _own_url()),
        files=mail_parts.files(email.source),
        source=email.source.decode("utf-8", "replace"),
    )


@bp.get(f"/inbox/<int(max={MAX_ID}):email_id>/html")
@front_door.operator_unless_trying_out
def mail_html(email_id: int) -> Response:
    """Send a mail's HTML alone, for the frame in its page."""
    html = _email(email_id).html
    if html is None:
        raise NotFoundError("This mail has no HTML part.")
    # Links open beside the frame, and those to this site lead to it on the way it was reached by.
    html = html.replace(f'href="{_own_url()}/', 'href="/')
    html = html.replace("<head>", '<head><base target="_blank">', 1)
    return Response(printable(html), mimetype="text/html", headers={"Content-Security-Policy": MAIL_POLICY})


@bp.get(f"/inbox/<int(max={MAX_ID}):email_id>/files/<int(max=999):number>")
@front_door.operator_unless_trying_out
def mail_file(email_id: int, number: int) -> Response:
    """Send one attachment of a mail, to be saved."""
    files = mail_parts.files(_email(email_id).source)
    if number >= len(files):
        raise NotFoundError("This mail has no such attachment.")
    answer = Response(files[number].content, mimetype="application/octet-stream")
    answer.headers["Content-Security-Policy"] = FILE_POLICY
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers["Content-Disposition"] = mail_parts.disposition(files[number].name)
    return answer


@bp.get("/api/inbox")
@front_door.operator_unless_trying_out
def mails_as_json() -> dict[str, Any]:
    """Answer with the mails, newest first."""
    return {"emails": [_as_json(email) for email in _emails(PAGE_LENGTH)]}


def _list() -> dict[str, Any]:
    emails = _emails(PAGE_LENGTH + 1)
    on_the_way = sum(by_hand.counts(("queued", "sending"), desk_mail.COUNT_UP_TO).values())
    seen = hashlib.sha256(repr((on_the_way, [email.id for email in emails])).encode()).hexdigest()[:16]
    before = request.args.get("before")
    return {
        "emails": emails[:PAGE_LENGTH],
        "is_more": len(emails) > PAGE_LENGTH,
        "is_first_page": not before,
        "on_the_way": on_the_way,
        "seen": seen,
        # Only the first page changes, and only while mails are on their way.
        "live_url": url_for("inbox.mails_live", seen=seen) if on_the_way and not before else None,
    }


def _emails(limit: int) -> list[InboxEmail]:
    before = number_in_query("before", 1, MAX_ID, int)
    return mailbox.mails(limit=limit, before_id=before)


def _email(email_id: int) -> InboxEmail:
    email = mailbox.mail(email_id)
    if email is None:
        raise NotFoundError("There is no such mail in the inbox.")
    return email


def _own_url() -> str:
    url: str = current_app.extensions["settings"].public_url
    return url


def _as_json(email: InboxEmail) -> dict[str, Any]:
    return {
        "id": email.id,
        "to": email.to,
        "subject": email.subject,
        "text": email.text,
        "html": email.html,
        "headers": dict(email.headers),
        "sent_at": email.sent_at,
    }
