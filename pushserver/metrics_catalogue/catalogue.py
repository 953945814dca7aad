"""The catalogue of metrics: every name, kind, label and label value, and the records that change each.

It is closed, so the number of series is known before the first request and no input can add one: a value outside its
set counts as ``other``. A new metric is one row here. How rows become Prometheus metrics is in ``metrics``; the page
``docs/metrics.md`` is written from it by ``python -m pushserver.metrics_catalogue``.
"""

from __future__ import annotations

from pushserver.metrics_catalogue.everywhere import COMMON_ROWS, VERSION
from pushserver.metrics_catalogue.labels import DAYS_LEFT, FETCH_CODES
from pushserver.metrics_catalogue.rows import BOTH, OTHER, WEB, WORKER, Amount, Metric
from pushserver.metrics_catalogue.web import WEB_ROWS
from pushserver.metrics_catalogue.worker import WORKER_ROWS

__all__ = ["BOTH", "CATALOGUE", "DAYS_LEFT", "FETCH_CODES", "OTHER", "VERSION", "WEB", "WORKER", "Amount", "Metric"]

CATALOGUE: tuple[Metric, ...] = (*WORKER_ROWS, *WEB_ROWS, *COMMON_ROWS)
