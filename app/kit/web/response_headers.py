"""What every answer tells the browser it may not do with it, and how the session's cookie is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask, Response, request

from app.kit.web.front_door import SESSION_S, is_operator

if TYPE_CHECKING:
    from app.settings import Settings

POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; object-src 'none'"
"""Scripts, styles, pictures and forms of this site alone, and none written into a page."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
HSTS = "max-age=31536000"


def register(app: Flask, settings: Settings) -> None:
    """Put the headers on every answer of the app, and set its cookie up for where it runs."""
    app.config.update(_cookie(settings))
    headers = dict(HEADERS)
    if settings.production and settings.is_https:
        headers["Strict-Transport-Security"] = HSTS

    @app.after_request
    def add_headers(response: Response) -> Response:
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        policy = response.headers["Content-Security-Policy"]
        if not settings.in_frame and "frame-ancestors" not in policy:
            # Nobody else may show our pages in a frame and have their buttons pressed unseen.
            response.headers["Content-Security-Policy"] = f"{policy}; frame-ancestors 'self'"
        if is_operator():
            response.headers.setdefault("Cache-Control", "no-store")  # not to be read after signing out
        if "uuid" in (request.view_args or {}):
            # Whoever knows a job's address may read it, so nobody else is to learn it.
            response.headers.setdefault("Cache-Control", "no-store")
            response.headers.setdefault("X-Robots-Tag", "noindex, nofollow")
        return response


def _cookie(settings: Settings) -> dict[str, object]:
    # In the frame of another site a browser keeps only a cookie that says so, and then for that frame alone.
    is_secure = settings.in_frame or settings.is_https
    return {
        # __Host-: no other site below the same domain can set it in our place.
        "SESSION_COOKIE_NAME": "__Host-postroom" if is_secure else "postroom",
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SECURE": is_secure,
        "SESSION_COOKIE_SAMESITE": "None" if settings.in_frame else "Lax",
        "SESSION_COOKIE_PARTITIONED": settings.in_frame,
        "SESSION_REFRESH_EACH_REQUEST": False,
        "PERMANENT_SESSION_LIFETIME": SESSION_S,
    }
