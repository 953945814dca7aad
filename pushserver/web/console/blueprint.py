"""The web console: one static page at ``/`` and its files under ``/console/``.

The page talks to the server only through the login API and Socket.IO, like any other client. Nothing in it is
rendered on the server, so the headers here are the whole of its protection: no inline script or style, nothing
from elsewhere, no frame around it and no address of ours in a Referer.
"""

from __future__ import annotations

from flask import Blueprint, Response

#: ``'self'`` in connect-src covers WebSockets to the page's own host and port, and no other host.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # Files keep their names across releases: always ask, 304 when nothing changed.
    "Cache-Control": "no-cache",
}


def create_console() -> Blueprint:
    """The console as a blueprint: ``GET /`` and ``GET /console/<file>``, both with ``HEADERS``."""
    console = Blueprint("console", __name__, static_folder="static", static_url_path="/console")

    @console.get("/")
    def page() -> Response:
        return console.send_static_file("index.html")

    @console.after_request
    def protect(response: Response) -> Response:
        response.headers.update(HEADERS)
        return response

    return console
