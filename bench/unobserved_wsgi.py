"""The web door without the observer that writes metrics; only the benchmark of their cost uses it."""

from gevent import monkey

monkey.patch_all()

from pushserver.observers import Observer
from pushserver.web import app as composition

composition.PrometheusObserver = Observer  # type: ignore[assignment, misc]

app = composition.create_app_from_environment()
