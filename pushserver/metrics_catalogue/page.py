"""The catalogue as a page for people: ``docs/metrics.md``."""

from __future__ import annotations

from collections.abc import Iterable

from pushserver.metrics_catalogue.rows import BOTH, ENUM_LABELS, OTHER, WEB, WORKER, Metric

HEAD = """# Metrics

Written from the catalogue in the code by `python -m pushserver.metrics_catalogue > docs/metrics.md`; do not edit.

Web workers of one gunicorn are scraped together at `WEB_METRICS_BIND`, each push worker at its `WORKER_METRICS_BIND`.
Every series exists from the start, at zero, and no input can add one: an unexpected label value counts as `other`.
Durations are seconds, sizes bytes. A histogram `x` has `x_bucket`, `x_sum` and `x_count`; its buckets end at `+Inf`.
Each process also has the client library's own figures (`process_*`, `python_*`) where that library can give them:
push workers yes, web workers no, hence `push_process_*`.
"""
TITLES = {WEB: "Web workers", WORKER: "Push workers", BOTH: "Both"}
#: How a gauge of several web workers becomes one figure.
MODES = {"livesum": "sum of all web workers", "livemax": "largest of all web workers",
         "livemin": "smallest of all web workers", "max": "largest of all web workers"}  # fmt: skip


def page(catalogue: Iterable[Metric]) -> str:
    """The whole page in Markdown."""
    rows = sorted(catalogue, key=lambda row: row.name)
    parts = [HEAD]
    for side, title in TITLES.items():
        parts.append(f"\n## {title}\n\n| metric | kind | meaning | labels |\n|---|---|---|---|\n")
        parts += [_line(row) for row in rows if row.side == side]
    return "".join(parts)


def _line(row: Metric) -> str:
    kind, meaning = row.kind, row.help.rstrip(".")
    if row.kind == "gauge" and row.side != WORKER:
        kind += f", {MODES[row.mode]}"
    if row.buckets:
        meaning += f". Buckets: {' '.join(f'{edge:g}' for edge in row.buckets)}"
    labels = "; ".join(f"`{name}`: {' '.join(_values(name, known))}" for name, known in row.labels.items())
    return f"| `{row.name}` | {kind} | {meaning} | {labels} |\n"


def _values(name: str, known: tuple[str, ...]) -> Iterable[str]:
    if name in ("version", "python"):
        return ["of the program" if name == "version" else "of the interpreter"]
    return known if name in ENUM_LABELS else (*known, OTHER)
