"""The web door with nothing that is there for metrics alone; only the benchmark of their cost uses it.

Without the observer that writes them, the sums of pushes that it is told, and the probes that look at the process, its
connections and the freshness of what it watches.
"""

from gevent import monkey

monkey.patch_all()

from typing import Any

from pushserver.observers import Observer
from pushserver.web import app as composition
from pushserver.web import deliveries


class NoTotals:
    """Instead of the sums of pushes."""

    def __init__(self, _observer: Observer) -> None:
        self.count = self.report = lambda *_figures: None


class NoSamples:
    """Instead of looking at what is watched."""

    def __init__(self, *_parts: Any) -> None:
        self.start = lambda: None


deliveries.PushTotals = NoTotals  # type: ignore[assignment, misc]
composition.PrometheusObserver = Observer  # type: ignore[assignment, misc]
composition.FreshnessSamples = NoSamples  # type: ignore[assignment, misc]
composition.start_measuring = lambda *_parts: None

app = composition.create_app_from_environment()
