"""The site's pages and its JSON, one blueprint a module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flask import Flask


def register(app: Flask) -> None:
    """Hang the blueprints, the error pages and what templates need on the app."""
    # Imported inside, so that `import app.pages` imports neither the tasks nor the pages.
    from app.pages import (
        bodies,
        books,
        desk,
        desk_actions,
        desk_mail,
        emails,
        error_pages,
        form_tokens,
        front_door,
        inbox,
        jobs,
        json_out,
        metrics,
        own_site,
        rate_limits,
        response_headers,
        sign_in,
        status,
        subscriptions,
    )
    from app.plain_text import printable

    app.json = json_out.SiteJSON(app)
    for module in (
        books,
        subscriptions,
        jobs,
        inbox,
        emails,
        status,
        sign_in,
        desk,
        desk_actions,
        desk_mail,
        metrics,
    ):
        app.register_blueprint(module.bp)
    app.add_url_rule("/favicon.ico", "favicon", lambda: app.send_static_file("favicon.svg"))
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

    @app.context_processor
    def for_every_template() -> dict[str, Any]:
        return {"inbox_is_on": inbox.is_on()}
