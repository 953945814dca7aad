"""What a row of the catalogue is, and the buckets that its histograms may have."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pushserver import observers as o

WEB, WORKER, BOTH = "web", "worker", "both"
OTHER = "other"
#: Labels whose values come from an enum or from the build itself, so that nothing else can occur.
ENUM_LABELS = frozenset({"type", "version", "python"})

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
REQUEST_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8)
LAG_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300)
AGE_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300)
STAGE_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60)
LIFETIME_BUCKETS = (1, 10, 60, 300, 1_800, 3_600, 14_400, 86_400)
LOOP_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 5)

Amount = float | str | Callable[[Any], float | None]
COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
#: What a record does to a series of each kind; a row may say otherwise.
_VERBS = {COUNTER: "inc", GAUGE: "inc", HISTOGRAM: "observe"}


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the catalogue. ``kind`` is counter, gauge or histogram.

    ``side`` is who has it: web, worker or both. ``feeds`` says which records change it and by how much: a number, the
    name of a field, or a function of the record (None: not this time); for a histogram also how many observations there
    were of each value. Labels are read from the record's fields of the same name. ``mode`` says how a gauge of several
    web workers becomes one figure.
    """

    name: str
    kind: str
    side: str
    help: str
    feeds: Mapping[type[o.Record], Amount]
    labels: Mapping[str, tuple[str, ...]]
    buckets: tuple[float, ...]
    verb: str
    mode: str

    def series(self) -> Iterable[tuple[str, ...]]:
        """Every combination of label values that can ever occur."""
        return itertools.product(
            *(known if name in ENUM_LABELS else (*known, OTHER) for name, known in self.labels.items())
        )

    def known(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """The series that counts for these values, whatever they are."""
        words = (str(label).replace(" ", "_") for label in labels)
        return tuple(word if word in known else OTHER for word, known in zip(words, self.labels.values(), strict=True))


def row(
    name: str, kind: str, side: str, text: str, feeds: Mapping[type[o.Record], Amount], /, *,
    buckets: tuple[float, ...] = (), verb: str = "", mode: str = "livesum", **labels: tuple[str, ...],
) -> Metric:  # fmt: skip
    return Metric(f"push_{name}", kind, side, text, feeds, labels, buckets, verb or _VERBS[kind], mode)
