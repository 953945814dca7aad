"""Reads the metric files of many processes and adds them up: the client library's format, without its parsing.

The library takes every file apart for every scrape. But all keys are there from the start and stay where they are, so
a file's layout is worked out once, and from then on its figures are read in one go.
"""

from __future__ import annotations

import json
import logging
import operator
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

#: How figures of several processes become one, by the kind of file; ``all`` and ``mostrecent`` gauges do not.
_COMBINED_BY: Mapping[str, Callable[[float, float], float]] = {
    "counter": operator.add, "histogram": operator.add,
    "gauge_sum": operator.add, "gauge_livesum": operator.add,
    "gauge_max": max, "gauge_livemax": max,
    "gauge_min": min, "gauge_livemin": min,
}  # fmt: skip
MODES = frozenset(kind.removeprefix("gauge_") for kind in _COMBINED_BY if kind.startswith("gauge_"))

_SIZE = struct.Struct("=i")
#: What a file begins with: how much of it is used, and four bytes of nothing.
_HEAD_BYTES = 8
#: Each figure is followed by its time stamp.
_STAMP_BYTES = 8
_UNREADABLE = (struct.error, ValueError, LookupError, OSError)


@dataclass(frozen=True, slots=True)
class Series:
    """What a key says: the metric with its help, and the sample with its labels."""

    metric: str
    sample: str
    labels: dict[str, str]
    help: str


@dataclass(frozen=True, slots=True)
class _Layout:
    used: int
    figures: struct.Struct
    series: tuple[str, ...]


class MetricFiles:
    """``series`` tells what the keys mean of everything that was read so far."""

    def __init__(self) -> None:
        self.series: dict[str, Series] = {}
        self._layouts: dict[Path, _Layout] = {}

    def added_up(self, paths: Iterable[Path]) -> dict[str, dict[str, float]]:
        """By counter, gauge and histogram: each key's figure, of all files together.

        A file that a dying process left half written is passed over.
        """
        totals: dict[str, dict[str, float]] = {}
        for path in paths:
            kind = path.stem.rpartition("_")[0]
            try:
                figures = self._read(path)
                combined = _COMBINED_BY[kind]
            except _UNREADABLE as error:
                logger.warning("metric file %s is passed over: %s", path.name, error)
                continue
            of_kind = totals.setdefault(kind.partition("_")[0], {})
            for key, figure in figures:
                of_kind[key] = combined(of_kind[key], figure) if key in of_kind else figure
        return totals

    def forget(self, path: Path) -> None:
        """The file is gone; another process may write one of this name."""
        self._layouts.pop(path, None)

    def _read(self, path: Path) -> Iterable[tuple[str, float]]:
        content = path.read_bytes()
        used = _SIZE.unpack_from(content)[0]
        layout = self._layouts.get(path)
        if layout is None or layout.used != used:
            layout = self._layouts[path] = self._layout(content, used)
        return zip(layout.series, layout.figures.unpack_from(content), strict=True)

    def _layout(self, content: bytes, used: int) -> _Layout:
        """Raises ValueError or struct.error when this is no metric file."""
        parts, keys, position = ["="], [], _HEAD_BYTES
        end = 0
        while position < used:
            length = _SIZE.unpack_from(content, position)[0]
            start = position + _SIZE.size
            if not 0 < length <= used - start:
                raise ValueError("a key reaches beyond the end")
            key = content[start : start + length].decode()
            if key not in self.series:
                self.series[key] = Series(*json.loads(key))
            keys.append(key)
            position = start + length + 8 - (length + _SIZE.size) % 8
            parts.append(f"{position - end}xd")
            end = position + struct.calcsize("=d")
            position = end + _STAMP_BYTES
        return _Layout(used, struct.Struct("".join(parts)), tuple(keys))
