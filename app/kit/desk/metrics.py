"""/metrics: the queue and the mail for a Prometheus, read from the database at each scrape."""

from __future__ import annotations

from flask import Blueprint, Response, current_app

from app.kit.web.front_door import operator_only

bp = Blueprint("metrics", __name__)


@bp.get("/metrics")
def metrics() -> Response:
    """Answer with the metrics; to the operator, unless METRICS_OPEN is 1."""
    is_open = current_app.extensions["settings"].metrics_open
    response: Response = _scrape() if is_open else operator_only(_scrape)()
    return response


def _scrape() -> Response:
    from app.kit.desk import metrics_text  # which few sites need

    return Response(metrics_text.text(), content_type=metrics_text.CONTENT_TYPE)
