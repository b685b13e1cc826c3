"""The site's pages and its JSON, one blueprint a module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flask import Flask, Response

SECURITY_HEADERS = {
    # No frame-ancestors and no X-Frame-Options: Replit shows the preview in a frame of another site.
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; object-src 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


def register(app: Flask) -> None:
    """Hang the blueprints, the error pages and what templates need on the app."""
    # Imported inside, so that `import app.pages` imports neither the tasks nor the pages.
    from app.pages import books, emails, error_pages, inbox, jobs, json_out, status, subscriptions

    app.json = json_out.SiteJSON(app)
    for module in (books, subscriptions, jobs, inbox, emails, status):
        app.register_blueprint(module.bp)
    app.add_url_rule("/favicon.ico", "favicon", lambda: app.send_static_file("favicon.svg"))
    for template_filter in (json_out.moment_text, json_out.printable):
        app.add_template_filter(template_filter)
    error_pages.register(app)

    @app.context_processor
    def for_every_template() -> dict[str, Any]:
        return {"inbox_is_on": inbox.is_on()}

    @app.after_request
    def add_security_headers(response: Response) -> Response:
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        return response
