"""The verdicts over the logs of a run. Each finding is a breach of the promise; pure, told everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from tests.system.blackbox.client_verdicts import ClientJudge
from tests.system.blackbox.convergence_verdicts import missing_final, silent_stale
from tests.system.blackbox.exchange_verdicts import double_fetch, over_budget
from tests.system.blackbox.logs import Logs
from tests.system.blackbox.rules import Finding, Rules
from tests.system.blackbox.timeline import Truth, by_client, holdings

VERDICTS = (
    "invented", "foreign", "regressed", "repeated", "unsolicited",
    "missing_final", "silent_stale", "over_budget", "double_fetch", "secret_seen",
)  # fmt: skip


def judge(logs: Logs, rules: Rules | None = None) -> list[Finding]:
    """Everything that is wrong with a run; empty when all promises were kept."""
    rules = rules or Rules()
    truth = Truth(logs.changes)
    clients = by_client(logs.entries)
    findings: list[Finding] = []
    for own in clients.values():
        findings += ClientJudge(truth, rules, logs.faults).judge(own)
    findings += missing_final(clients, holdings(logs.entries, truth), truth, logs.checkpoints)
    findings += silent_stale(clients, logs.faults, logs.checkpoints, rules)
    findings += over_budget(logs.answers, logs.faults, rules)
    findings += double_fetch(logs.answers, logs.entries, logs.faults, rules)
    findings += secret_seen(logs.texts, logs.secrets)
    return sorted(findings, key=lambda finding: finding.t)


def count(findings: list[Finding]) -> Counter[str]:
    """The verdicts that are not zero."""
    return Counter(finding.verdict for finding in findings)


def secret_seen(texts: Mapping[str, str], secrets: Mapping[str, str]) -> Iterator[Finding]:
    """A secret in what was printed, exported or stored in the clear; it is named, never shown."""
    for place, text in texts.items():
        for name, secret in secrets.items():
            if secret in text:
                yield Finding("secret_seen", 0.0, f"{name} stands in {place}")
