"""``python -m pushserver.metrics_catalogue`` prints ``docs/metrics.md``."""

from __future__ import annotations

import sys

from pushserver.metrics_catalogue.catalogue import CATALOGUE
from pushserver.metrics_catalogue.page import page

sys.stdout.write(page(CATALOGUE))
