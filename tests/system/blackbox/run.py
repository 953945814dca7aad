"""A chaos run: the whole program under a load that changes accounts, clients that write everything down, faults."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pushserver.exchange_sim.client import SimControl
from tests.system.blackbox.figures import Figures, measure
from tests.system.blackbox.load import Load
from tests.system.blackbox.logs import TYPES, Answer, Change, Checkpoint, Entry, Fault, Logs, read_truth
from tests.system.blackbox.progress import Progress
from tests.system.blackbox.recording import Recording, light_clients, node_clients
from tests.system.blackbox.rules import Finding, Rules
from tests.system.blackbox.stalls import Stalls
from tests.system.blackbox.texts import secrets_of, texts_of
from tests.system.blackbox.verdicts import count, judge
from tests.system.harness import Stack

PAGE = 10_000
TRUTH_CAPACITY = 2_000_000
LOOK_S = 0.05
#: A user is hinted at twice a second at most.
HINTS_APART_S = 0.4
FIRST_NODE_CLIENT = 1_000_000


class ChaosRun:
    """``users`` users with ``clients_per_user`` light clients each, and the first ``node_clients`` users with one
    official client more. See the package's docstring for how to use it.

    ``stack``: a deployment of the caller's own, started already and stopped by the caller.
    """

    def __init__(
        self,
        folder: Path,
        *,
        users: int = 12,
        clients_per_user: int = 2,
        node_phones: int = 2,
        changes_per_s: float = 20.0,
        seed: int = 1,
        intervals: str = "balance=2,positions=2,pnl=2,orders=2",
        web_workers: int = 2,
        push_workers: int = 2,
        environ: Mapping[str, str] | None = None,
        types: Sequence[str] = TYPES,
        stack: Stack | None = None,
    ) -> None:
        self.folder = folder
        self.seed = seed
        self.chance = random.Random(f"{seed}:faults")
        self.faults: list[Fault] = []
        self.checkpoints: list[Checkpoint] = []
        self.progress = Progress()
        self.stalls = Stalls(folder / "stalls.txt")
        self._own_stack = stack is None
        self.stack = stack or Stack(
            folder,
            users=users,
            web_workers=web_workers,
            push_workers=push_workers,
            intervals=intervals,
            environ=environ,
        )
        self.rules = Rules(
            intervals_s={name: float(s) for name, s in (pair.split("=") for pair in self._setting("PUSH_INTERVALS"))},
            address_requests=int(self.stack.environ.get("BYBIT_IP_REQUESTS_PER_5S", "480")),
            hints_apart_s=HINTS_APART_S if self.stack.environ["BYBIT_STREAM_URL"] else None,
        )
        self._users = list(range(1, users + 1))
        self._clients_per_user = clients_per_user
        self._node_phones = node_phones
        self._changes_per_s = changes_per_s
        self._types = list(types)
        self._tokens: dict[int, str] = {}
        self._recordings: list[Recording] = []
        self._changes: list[Change] = []
        self._answers: list[Answer] = []
        self._seen: dict[int, int] = {}
        self._last_row: dict[str, Any] | None = None

    def _setting(self, name: str) -> list[str]:
        return self.stack.environ[name].split(",")

    def __enter__(self) -> ChaosRun:
        try:
            if self._own_stack:
                self.stack.start()
            self.exchange = SimControl(self.stack.exchange_url)
            self.exchange.freeze()
            self.exchange.keep_in_truth(keep_figures=True, capacity=TRUTH_CAPACITY)
            self.load = Load(self.exchange, self._users, self._changes_per_s, self.seed)
            self.load.prepare()
            self._connect()
            self.load.start()
            self.stalls.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if error[0] is None:
                self.load.stop()
        finally:
            self._end()

    def _connect(self) -> None:
        self._tokens = {user: self.stack.token(user) for user in self._users}
        address = f"127.0.0.1:{self.stack.web_port}"
        self.clients = light_clients(address, self.folder / "clients.jsonl", self.seed)
        self._recordings.append(self.clients)
        wanted = [(user, index) for index in range(self._clients_per_user) for user in self._users]
        light = [
            [number, user, self._tokens[user], self._types] for number, (user, _) in enumerate(wanted, 1)
        ]  # fmt: skip
        self.clients.order(connect=light)
        node = [
            [FIRST_NODE_CLIENT + user, user, self._tokens[user], self._types]
            for user in self._users[: self._node_phones]
        ]  # fmt: skip
        if node:
            self._recordings.append(node_clients(address, self.folder / "node-clients.jsonl"))
            self._recordings[-1].order(connect=node)
        everybody = len(light) + len(node)
        self.wait_caught_up(40, lambda: self.progress.subscribed() == everybody)

    def _end(self) -> None:
        self.stalls.stop()
        for recording in self._recordings:
            recording.close()
        if self._own_stack:
            self.stack.stop()

    # Faults and time

    def fault(
        self,
        kind: str,
        target: str,
        inject: Callable[[], object],
        heal: Callable[[], object] | None = None,
        hold_s: float = 0.0,
        **marks: Any,
    ) -> Fault:
        """Do something bad now, for ``hold_s``; then ``heal``. ``marks``: ``gap``, ``ban``, ``blocks``, ``users``."""
        with self.during(kind, target, **marks):
            inject()
            if hold_s:
                self.let_pass(hold_s)
            if heal is not None:
                heal()
        return self.faults[-1]

    @contextmanager
    def during(self, kind: str, target: str, **marks: Any) -> Iterator[None]:
        """What is done within is one fault, over when the block ends. The bus may lose messages in every R row."""
        marks = {"gap": kind.startswith("R")} | marks
        t_start = time.monotonic()
        try:
            yield
        finally:
            self.faults.append(Fault(t_start, time.monotonic(), kind, target, **marks))

    def now(self) -> float:
        """The time that all logs are in."""
        return time.monotonic()

    def let_pass(self, seconds: float) -> None:
        """Load and clients go on meanwhile."""
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0:
            time.sleep(min(LOOK_S, left_s))

    def random_moment(self, within_s: float = 2.0) -> None:
        """Let a random time pass, by the run's seed."""
        self.let_pass(self.chance.uniform(0.0, within_s))

    def wait_caught_up(self, within_s: float, also: Callable[[], bool] = lambda: True) -> float:
        """Until every client shows what is true now or something newer, load or not; how long it took, seconds.

        AssertionError when that takes longer than ``within_s``.
        """
        t = time.monotonic()
        while not (self._look() and not self.progress.behind(t) and also()):
            behind = "; ".join(self.progress.behind(t)[:5])
            subscribed = f"{self.progress.subscribed()} of {len(self.progress.clients)} clients are subscribed"
            assert time.monotonic() < t + within_s, f"not caught up after {within_s:g} s: {subscribed}; {behind}"
            time.sleep(LOOK_S)
        return time.monotonic() - t

    def settle(self, deadline_s: float = 20.0, resume: bool = True) -> float:
        """Stop the load and wait until every client shows the truth, at most so long; the seconds it took.

        This is a checkpoint: whoever is behind at its end is a ``missing_final``, whoever is then still told that a
        type is late a ``silent_stale``.
        """
        self.load.stop()
        t_quiet = time.monotonic()
        while time.monotonic() < t_quiet + deadline_s:
            self._look()
            if not self.progress.behind(t_quiet) and not self.progress.told_late():
                break
            time.sleep(LOOK_S)
        self.checkpoints.append(Checkpoint(t_quiet, time.monotonic()))
        if resume:
            self.load.start()
        return time.monotonic() - t_quiet

    def _look(self) -> bool:
        """Read what is new in all logs."""
        self._read_truth()
        for number, recording in enumerate(self._recordings):
            entries = recording.read()
            self.progress.take_entries(entries[self._seen.get(number, 0) :])
            self._seen[number] = len(entries)
        return True

    def _read_truth(self) -> None:
        while True:
            after = self._last_row["seq"] if self._last_row else 0
            rows = self.exchange.truth(after, limit=PAGE)
            if not rows:
                return
            known = [self._last_row] if self._last_row else []
            changes, answers = read_truth(known + rows)
            if known and known[0]["kind"] == "change" and "figures" in known[0]:
                changes = changes[1:]
            elif known and known[0]["kind"] == "answer":
                answers = answers[1:]
            self.progress.take_changes(changes)
            self._changes += changes
            self._answers += answers
            self._last_row = rows[-1]

    # Judgement

    def logs(self) -> Logs:
        """Everything so far."""
        self._look()
        entries: list[Entry] = [entry for recording in self._recordings for entry in recording.read()]
        return Logs(
            self._changes, self._answers, entries, self.faults, self.checkpoints,
            texts_of(self.stack), secrets_of(self.stack, self._tokens), self.seed,
        )  # fmt: skip

    def findings(self) -> list[Finding]:
        return judge(self.logs(), self.rules)

    def verdicts(self) -> Counter[str]:
        """Verdict to number of findings; empty when every promise was kept."""
        return count(self.findings())

    def figures(self) -> Figures:
        return measure(self.logs())

    def report(self) -> str:
        """Verdicts, the first findings and the figures, for people; also what a failed assert should show."""
        findings = self.findings()
        lines = [f"seed {self.seed}", f"verdicts {dict(count(findings))}"]
        lines += [f"  {finding.verdict}: {finding.text} (t {finding.t:.3f})" for finding in findings[:20]]
        return "\n".join([*lines, *self.figures().lines()])
