"""Signing in with the operator's token, by a form or by the link that is printed at the start, and out again."""

from __future__ import annotations

from http import HTTPStatus

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from app.kit.web import front_door
from app.kit.web.own_site import own_path
from app.kit.web.rate_limits import guess_is_right

HOME = "/desk"
"""Where the operator arrives who wanted nothing else."""

WRONG_TOKEN = "That is not the token. It is printed where the site was started, or it is your ADMIN_TOKEN."

bp = Blueprint("sign_in", __name__)


@bp.get("/sign-in")
def page() -> Response | str:
    """Show the form; the link with a token signs in at once and leads to an address without it.

    Nothing is gained by a button in between: the token would stay in the address bar until it is pressed. And
    nothing is done in somebody's name by opening the link: who has it, has the token.
    """
    token = request.args.get("token")
    wanted = own_path(request.args.get("next"))
    if token is None:
        return _form(wanted, failed="failed" in request.args)
    if guess_is_right(token):
        front_door.sign_in()
        return redirect(wanted or HOME, HTTPStatus.SEE_OTHER)
    return redirect(url_for(".page", failed=1, next=wanted), HTTPStatus.SEE_OTHER)


@bp.post("/sign-in")
def sign_in() -> Response | tuple[str, int]:
    """Sign in with the form's token."""
    wanted = own_path(request.form.get("next"))
    if not guess_is_right(request.form.get("token", "").strip()):
        return _form(wanted, failed=True), HTTPStatus.UNAUTHORIZED
    front_door.sign_in()
    return redirect(wanted or HOME, HTTPStatus.SEE_OTHER)


@bp.post("/sign-out")
def sign_out() -> Response:
    """End the operator's sessions everywhere."""
    front_door.sign_out()
    return redirect(url_for("home"), HTTPStatus.SEE_OTHER)


@bp.after_request
def hide_token(response: Response) -> Response:
    """Keep an address that may hold the token out of caches and of the next site's log."""
    response.headers.update({"Cache-Control": "no-store", "Referrer-Policy": "same-origin"})
    if "token" in request.args:
        response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _form(wanted: str | None, failed: bool) -> str:
    return render_template("kit/sign_in.html", wanted=wanted, message=WRONG_TOKEN if failed else None)
