"""One row of the fault matrix on a deployment that goes through several, each judged by its own part of the logs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.system.blackbox.figures import Aftermath
from tests.system.blackbox.logs import Entry
from tests.system.blackbox.run import ChaosRun
from tests.system.blackbox.verdicts import count


@dataclass(slots=True)
class Row:
    """``started_s`` on the monotonic clock; ``aftermaths`` of its faults, once the row is over."""

    run: ChaosRun
    started_s: float
    aftermaths: list[Aftermath] = field(default_factory=list)

    def entries(self, *events: str) -> list[Entry]:
        """What happened to the clients since it began."""
        return [entry for entry in self.run.logs().entries if entry.t >= self.started_s and entry.event in events]


@contextmanager
def row(run: ChaosRun, within_s: float, settle_s: float = 20.0) -> Iterator[Row]:
    """At its end all is settled, every promise was kept, and each of its faults was over ``within_s`` after its end.

    The figures are printed by kind of fault, so that a log of the tests is a table of recovery times.
    """
    faults_before = len(run.faults)
    found = Row(run, time.monotonic())
    yield found
    run.wait_caught_up(max(within_s, 5.0) + 10.0)
    run.settle(settle_s)
    findings = [finding for finding in run.findings() if finding.t >= found.started_s]
    assert not findings, (count(findings), findings[:10], run.report())
    found.aftermaths += run.figures().faults[faults_before:]
    assert found.aftermaths, "nothing was done"
    for aftermath in found.aftermaths:
        print(aftermath.line())
        assert aftermath.reconvergence_s.max <= within_s, run.report()
