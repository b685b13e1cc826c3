"""Hangs the kit on the app: its pages, its guards, and what templates need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Blueprint, render_template

if TYPE_CHECKING:
    from types import ModuleType

    from flask import Flask

HOME = "/"


def register(app: Flask, pages: list[ModuleType]) -> None:
    """Hang your pages and the kit's on the app, and what stands before all of them."""
    # Imported inside, so that `import app.kit.register` imports no page.
    from app.kit.desk import actions, desk, emails, inbox, jobs, mail, metrics, status
    from app.kit.plain_text import printable
    from app.kit.web import (
        bodies,
        error_pages,
        form_tokens,
        front_door,
        json_out,
        own_site,
        rate_limits,
        response_headers,
        sign_in,
    )

    app.json = json_out.SiteJSON(app)
    kit = Blueprint(
        "kit", __name__, template_folder="templates", static_folder="static", static_url_path="/static/kit"
    )
    app.register_blueprint(kit)
    for module in (*pages, jobs, inbox, emails, status, sign_in, desk, actions, mail, metrics):
        app.register_blueprint(module.bp)
    _claim_home(app)
    app.add_url_rule("/favicon.ico", "favicon", lambda: kit.send_static_file("favicon.svg"))
    for template_filter in (json_out.moment_text, printable):
        app.add_template_filter(template_filter)
    app.add_template_global(front_door.is_operator)
    settings = app.extensions["settings"]
    response_headers.register(app, settings)
    error_pages.register(app)
    own_site.register(app, settings)
    # Before all others: it decides who asks, so that none of their refusals tells of a token.
    rate_limits.register(app, settings.ratelimit_enabled)
    bodies.register(app)
    form_tokens.register(app)
    menu = [(module.menu, _first_page(app, module)) for module in pages if hasattr(module, "menu")]

    @app.context_processor
    def for_every_template() -> dict[str, Any]:
        return {"inbox_is_on": inbox.is_on(), "menu": menu}


def _claim_home(app: Flask) -> None:
    """Let links lead to the first page by the name `home`, and say where to write one while there is none."""
    is_claimed = any(rule.rule == HOME for rule in app.url_map.iter_rules())
    app.add_url_rule(HOME, "home", lambda: render_template("kit/home.html"), build_only=is_claimed)


def _first_page(app: Flask, module: ModuleType) -> str:
    """Return the endpoint of the first route of a page's module that takes no argument."""
    for rule in app.url_map.iter_rules():
        is_own = rule.endpoint.partition(".")[0] == module.bp.name
        if is_own and not rule.arguments and "GET" in (rule.methods or ()):
            return str(rule.endpoint)
    raise LookupError(f"{module.__name__} has a menu entry, but no route for GET without arguments.")
