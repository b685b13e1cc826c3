"""The built-in inbox: the mails that were sent while no mail server is set."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, current_app, render_template, request

from app.errors import NotFoundError
from app.mail import inbox as mailbox
from app.mail.inbox import InboxEmail
from app.pages.json_in import number_in_query

PAGE_LENGTH = 50
MAX_ID = 2**63 - 1
VIEWS = ("text", "html", "source")
# A mail may be written by anybody, so it runs no script, loads nothing and counts as another site.
MAIL_POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; "
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'"
)

bp = Blueprint("inbox", __name__)


def is_on() -> bool:
    """Say whether mails go to the built-in inbox."""
    return not current_app.extensions["settings"].mail_url


@bp.get("/inbox")
def mails() -> str:
    """List the mails, newest first."""
    emails = _emails(PAGE_LENGTH + 1)
    return render_template("inbox.html", emails=emails[:PAGE_LENGTH], is_more=len(emails) > PAGE_LENGTH)


@bp.get(f"/inbox/<int(max={MAX_ID}):email_id>")
def mail(email_id: int) -> str:
    """Show one mail as text, as HTML or as it went over the wire."""
    email = _email(email_id)
    view = request.args.get("view", "")
    if view not in VIEWS or (view == "html" and email.html is None):
        view = "text" if email.html is None else "html"
    return render_template(
        "mail.html", email=email, view=view, source=email.source.decode("utf-8", "replace")
    )


@bp.get(f"/inbox/<int(max={MAX_ID}):email_id>/html")
def mail_html(email_id: int) -> Response:
    """Send a mail's HTML alone, for the frame in its page."""
    html = _email(email_id).html
    if html is None:
        raise NotFoundError("This mail has no HTML part.")
    # Links open beside the frame, not inside it.
    html = html.replace("<head>", '<head><base target="_blank">', 1)
    return Response(html, mimetype="text/html", headers={"Content-Security-Policy": MAIL_POLICY})


@bp.get("/api/inbox")
def mails_as_json() -> dict[str, Any]:
    """Answer with the mails, newest first."""
    return {"emails": [_as_json(email) for email in _emails(PAGE_LENGTH)]}


def _emails(limit: int) -> list[InboxEmail]:
    _must_be_on()
    before = number_in_query("before", 1, MAX_ID, int)
    return mailbox.mails(limit=limit, before_id=before)


def _email(email_id: int) -> InboxEmail:
    _must_be_on()
    email = mailbox.mail(email_id)
    if email is None:
        raise NotFoundError("There is no such mail in the inbox.")
    return email


def _must_be_on() -> None:
    if not is_on():
        raise NotFoundError("The built-in inbox is off: mails go out through the server that MAIL_URL names.")


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
