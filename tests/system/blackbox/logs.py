"""The three logs that a run is judged by, and how they are read. ``t`` is CLOCK_MONOTONIC in seconds everywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TYPES = ("balance", "positions", "pnl", "orders")
NUMBERS = frozenset(
    {
        "total_balance", "available_balance", "used_margin", "total_pnl", "today_pnl", "unrealized_pnl", "realized_pnl",
        "size", "entry_price", "mark_price", "quantity", "price",
    }
)  # fmt: skip


def digest(data: Any) -> str:
    """One short name per state: the exchange's decimal strings and the phones' JSON numbers give the same."""
    plain = json.dumps(_plain(data), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(plain.encode(), digest_size=8).hexdigest()


def _plain(value: Any, name: str = "") -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if name in NUMBERS and value is not None and not isinstance(value, bool):
        # Both sides went through a float once; twelve figures are more than any of them means.
        return f"{float(value):.12g}"
    return value


@dataclass(frozen=True, slots=True)
class Change:
    """The exchange's account of ``user`` as it was from ``t`` on; ``digests`` by type (None: a wallet never used)."""

    user: int
    version: int
    t: float
    digests: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Answer:
    """One request that reached the exchange. ``t_out`` is None when nothing was said."""

    t_in: float
    t_out: float | None
    address: str
    api_key: str
    user: int | None
    endpoint: str
    query: str
    status: int
    ret_code: int | None
    version: int | None
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened to a client. ``conn`` counts its connections from 1.

    ``event``: ``connect``, ``refused`` (``code``: why), ``disconnect`` (``code``: the WebSocket close code, ``eof`` or
    ``disconnect packet``), ``subscribe`` and ``unsubscribe`` (sent, ``types``), ``subscribed`` and ``unsubscribed``
    (answered, ``types``: those accepted), ``resync`` (sent), ``update``, ``status`` (``state``, ``code``: the reason),
    ``error`` (``code``), ``leave`` (the client ends for good, by its own will).
    ``told_user`` is the user id inside an update; ``size`` its bytes on the wire.
    """

    client: int
    user: int
    conn: int
    t: float
    event: str
    type: str = ""
    seq: int = 0
    as_of: int = 0
    digest: str = ""
    size: int = 0
    types: tuple[str, ...] = ()
    state: str = ""
    code: str = ""
    told_user: int | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done to whom. ``t_end`` is when it was healed: for a kill, the moment of the kill.

    ``gap``: messages of the bus may have been lost, so equal content may be sent again. ``ban``: the exchange refuses
    the whole address. ``blocks``: the types that cannot be read meanwhile, of ``users`` (None: of all): their clients
    must be told so.
    """

    t_start: float
    t_end: float
    kind: str
    target: str
    gap: bool = False
    ban: bool = False
    blocks: frozenset[str] = frozenset()
    users: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """From ``t_quiet`` on the exchange stood still and nothing was broken; at ``t_deadline`` all must be settled."""

    t_quiet: float
    t_deadline: float


@dataclass(slots=True)
class Logs:
    """All that a run is judged by. ``texts``: name to text of what was printed or stored, to be searched for
    ``secrets`` (name to the secret itself)."""

    changes: Sequence[Change] = ()
    answers: Sequence[Answer] = ()
    entries: Sequence[Entry] = ()
    faults: Sequence[Fault] = ()
    checkpoints: Sequence[Checkpoint] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0


def read_truth(rows: Iterable[Mapping[str, Any]]) -> tuple[list[Change], list[Answer]]:
    """The simulator's log of truth, kept with ``keep_figures``. Raises ValueError when entries are missing in it."""
    changes, answers, last = [], [], None
    for row in rows:
        if last is not None and row["seq"] != last + 1:
            raise ValueError(f"the truth log lost its entries {last + 1} to {row['seq'] - 1}: give it more capacity")
        last = row["seq"]
        if row["kind"] == "change" and "figures" in row:
            digests = {name: None if row["figures"][name] is None else digest(row["figures"][name]) for name in TYPES}
            changes.append(Change(row["user"], row["version"], row["t"], digests))
        elif row["kind"] == "answer":
            names = ("t_in", "t_out", "address", "api_key", "user", "endpoint", "query", "status", "ret_code")
            answers.append(Answer(*(row[name] for name in names), row["version"], tuple(row["faults"])))
    return changes, answers


def read_entries(lines: Iterable[str]) -> list[Entry]:
    """Lines of a recorder: JSON objects with the fields of Entry; an update may bring ``data`` in place of a digest."""
    entries = []
    for line in lines:
        fields = json.loads(line)
        if "data" in fields:
            fields["digest"] = digest(fields.pop("data"))
        if "types" in fields:
            fields["types"] = tuple(fields["types"])
        entries.append(Entry(**fields))
    return entries
