"""Logs of a deployment that kept every promise, made up: for trying the judges, without a process.

Three users with two clients each, read every 2 s; a ban, a lost web worker, a lost bus, an ``unsubscribe``, a
``resync``, and quiet at the end. All times are seconds on the made-up clock.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tests.system.blackbox.logs import TYPES, Answer, Change, Checkpoint, Entry, Fault, Logs, digest
from tests.system.blackbox.rules import CLOSED_PNL, ORDERS, POSITIONS, WALLET, Rules

USERS = (1, 2, 3)
BEGIN_S, QUIET_S, END_S = 100.0, 150.0, 158.0
BAN = Fault(120.0, 130.0, "E2", "exchange", ban=True, blocks=frozenset(TYPES))
LOST_WORKER = Fault(135.0, 135.0, "P4", "web 1")
LOST_BUS = Fault(140.0, 141.0, "R4", "bus", gap=True)
INTERVAL_S = 2.0
RULES = Rules(intervals_s=dict.fromkeys(TYPES, INTERVAL_S))
#: Clients 1 to 3 are the users' first ones, 4 to 6 the second ones; these have something special happen to them.
RETURNING, LEAVING_ORDERS, RESYNCING = 2, 3, 4
SECRET = "correct-horse-battery"


def state(user: int, name: str, version: int) -> str:
    """The digest of a user's type at a version of the account."""
    return digest({"type": name, "user": user, "size": f"{user + version * 0.000001:.6f}"})


@dataclass(slots=True)
class Deployment:
    """Tells the story, second by second; ``logs`` is what was written down."""

    chance: random.Random
    changes: list[Change] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    version: dict[int, int] = field(default_factory=dict)
    stored: dict[tuple[int, str], tuple[int, int, str]] = field(default_factory=dict)
    subscribed: dict[int, set[str]] = field(default_factory=dict)
    conn: dict[int, int] = field(default_factory=dict)

    def note(self, client: int, t: float, event: str, **fields: object) -> None:
        user = (client - 1) % len(USERS) + 1
        self.entries.append(Entry(client, user, self.conn[client], t, event, **fields))  # type: ignore[arg-type]

    def change(self, user: int, t: float) -> None:
        version = self.version[user] = self.version.get(user, 0) + 1
        self.changes.append(Change(user, version, t, {name: state(user, name, version) for name in TYPES}))

    def connect(self, client: int, t: float) -> None:
        self.conn[client] = self.conn.get(client, 0) + 1
        self.note(client, t, "connect")
        self.subscribe(client, t, TYPES)

    def subscribe(self, client: int, t: float, names: tuple[str, ...]) -> None:
        self.note(client, t, "subscribe", types=names)
        self.note(client, t + 0.01, "subscribed", types=names)
        self.subscribed.setdefault(client, set()).update(names)
        for name in names:
            self.send(client, name, t + 0.02)

    def unsubscribe(self, client: int, t: float, names: tuple[str, ...]) -> None:
        self.note(client, t, "unsubscribe", types=names)
        self.note(client, t + 0.01, "unsubscribed", types=names)
        self.subscribed[client].difference_update(names)

    def disconnect(self, client: int, t: float) -> None:
        self.note(client, t, "disconnect", code="eof")
        self.subscribed[client].clear()

    def send(self, client: int, name: str, t: float) -> None:
        user = (client - 1) % len(USERS) + 1
        if (user, name) in self.stored:
            seq, as_of, content = self.stored[user, name]
            self.note(client, t, "update", type=name, seq=seq, as_of=as_of, digest=content, size=200, told_user=user)

    def read(self, user: int, t: float) -> None:
        """One round of a user at the exchange, and what comes of it."""
        banned = BAN.t_start <= t < BAN.t_end
        for number, endpoint in enumerate((WALLET, POSITIONS, CLOSED_PNL, ORDERS)):
            at, status, code = t + number * 0.01, 403 if banned else 200, None if banned else 0
            key, version = f"key-{user}", self.version[user]
            self.answers.append(Answer(at, at + 0.005, "127.0.0.1", key, user, endpoint, "", status, code, version))
            if banned:
                return
        for name in TYPES:
            self.commit(user, name, t + 0.04, state(user, name, self.version[user]))

    def commit(self, user: int, name: str, t: float, content: str, although_equal: bool = False) -> None:
        if (user, name) in self.stored and self.stored[user, name][2] == content and not although_equal:
            return
        self.stored[user, name] = (round(t * 1000), round((t - 0.04) * 1000), content)
        for client, names in self.subscribed.items():
            if (client - 1) % len(USERS) + 1 == user and name in names:
                self.send(client, name, t + 0.01)

    def tell_all(self, t: float, state: str, code: str) -> None:
        for client, names in self.subscribed.items():
            for name in sorted(names):
                self.note(client, t, "status", type=name, state=state, code=code)

    def logs(self) -> Logs:
        return Logs(
            self.changes, self.answers, sorted(self.entries, key=lambda entry: entry.t),
            [BAN, LOST_WORKER, LOST_BUS], [Checkpoint(QUIET_S, QUIET_S + 6)],
            {"log of web": "listening", "Redis": "push:state:1 {}"}, {"password": SECRET},
        )  # fmt: skip


def good_run(seed: int) -> Logs:
    """The logs of one such run; another seed, other moments."""
    deployment = Deployment(random.Random(seed))
    chance = deployment.chance
    happenings: list[tuple[float, str, int]] = []
    for user in USERS:
        deployment.change(user, BEGIN_S - 2)
        phase_s = chance.uniform(0.2, 0.9)
        rounds = [BEGIN_S + phase_s + INTERVAL_S * n for n in range(int((END_S - BEGIN_S) / INTERVAL_S))]
        happenings += [(t, "read", user) for t in rounds if not BAN.t_start <= t < BAN.t_end]
        changing = BEGIN_S
        while (changing := changing + chance.uniform(0.5, 3.0)) < QUIET_S:
            happenings.append((changing, "change", user))
    happenings += [(BEGIN_S, "connect", client) for client in range(1, 2 * len(USERS) + 1)]
    happenings += [
        (BAN.t_start + 0.1, "read", 1), (BAN.t_start + 3.5, "banned", 0), (BAN.t_end + 1.5, "live", 0),
        (112.0, "unsubscribe", LEAVING_ORDERS), (115.0, "subscribe", LEAVING_ORDERS), (117.0, "resync", RESYNCING),
        (LOST_WORKER.t_start, "disconnect", RETURNING), (LOST_WORKER.t_start + 0.7, "connect", RETURNING),
        (LOST_BUS.t_end + 0.05, "again", 1),
    ]  # fmt: skip
    for t, what, whom in sorted(happenings):
        if what == "resync":
            deployment.note(whom, t, "resync", types=TYPES)
            deployment.send(whom, "pnl", t + 0.01)
        elif what in ("banned", "live"):
            deployment.tell_all(
                t, "delayed" if what == "banned" else "live", "rate_limited" if what == "banned" else ""
            )
        elif what in ("subscribe", "unsubscribe"):
            getattr(deployment, what)(whom, t, ("orders",))
        elif what == "again":
            deployment.commit(whom, "pnl", t, deployment.stored[whom, "pnl"][2], although_equal=True)
        else:
            getattr(deployment, what)(whom, t)
    return deployment.logs()
