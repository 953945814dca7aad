"""Faults that wait for their request: which kind, for whom, how often, how long."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from pushserver.exchange_sim.fault_kinds import CHOICES, KINDS, Options
from pushserver.exchange_sim.http_messages import Answer


@dataclass(slots=True)
class Fault:
    """Unset conditions match everything. ``times`` counts down; ``until_s`` is monotonic. The first ``skip`` requests
    that match are spared, so that one fault can follow another."""

    number: int
    kind: str
    options: Options
    api_key: str | None = None
    user: int | None = None
    endpoint: str | None = None
    query_contains: str = ""
    times: int | None = None
    until_s: float | None = None
    probability: float = 1.0
    skip: int = 0
    drawn: int = 0

    def over(self, now_s: float) -> bool:
        return self.times == 0 or (self.until_s is not None and now_s >= self.until_s)

    def matches(self, path: str, query: str, api_key: str, user: int | None) -> bool:
        return (
            self.endpoint in (None, path)
            and self.api_key in (None, api_key)
            and (self.user is None or self.user == user)
            and self.query_contains in query
        )


def check_options(kind: str, options: Options) -> None:
    """Raises ValueError for an option the kind does not know, or of another type than its default."""
    for name, value in options.items():
        if name not in KINDS[kind].options:
            raise ValueError(f"fault {kind} has no option {name!r}; it has {', '.join(KINDS[kind].options) or 'none'}")
        default = KINDS[kind].options[name]
        fits = default is None or isinstance(value, type(default)) or (type(default) is float and type(value) is int)
        if not fits:
            raise ValueError(f"option {name} of fault {kind} must be like {default!r}")
        if name in CHOICES and value not in CHOICES[name]:
            raise ValueError(f"option {name} is one of {', '.join(CHOICES[name])}")


@dataclass(slots=True)
class Injected:
    """The faults one request has drawn, in the order they were set."""

    faults: list[Fault] = field(default_factory=list)
    chance: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311 - invented misfortune

    @property
    def names(self) -> list[str]:
        return [fault.kind for fault in self.faults]

    def total(self, kind: str, option: str) -> float:
        """The sum of an option over the drawn faults of a kind."""
        return float(sum(fault.options[option] for fault in self.faults if fault.kind == kind))

    def replacement(self, now_ms: int) -> Answer | None:
        """What the first fault that replaces the answer puts in its place."""
        for fault in self.faults:
            replace = KINDS[fault.kind].replace
            if replace is not None:
                return replace(fault.options, now_ms)
        return None

    def distort(self, answer: Answer) -> None:
        for fault in self.faults:
            distort = KINDS[fault.kind].distort
            if distort is not None:
                distort(fault.options, answer, self.chance)


class Faults:
    """All faults set. ``chance`` decides where a fault has a probability or a distribution."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self._faults: list[Fault] = []
        self._last_number = 0

    def set(self, kind: str, options: Options, **conditions: Any) -> Fault:
        """Raises ValueError for an unknown kind, option or condition."""
        if kind not in KINDS:
            raise ValueError(f"no fault is called {kind!r}; there are {', '.join(sorted(KINDS))}")
        check_options(kind, options)
        self._last_number += 1
        fault = Fault(self._last_number, kind, KINDS[kind].options | options, **conditions)
        self._faults.append(fault)
        return fault

    def clear(self, number: int | None = None) -> None:
        """Forget one fault, or all."""
        self._faults = [f for f in self._faults if number is not None and f.number != number]

    def active(self, now_s: float) -> list[Fault]:
        self._faults = [fault for fault in self._faults if not fault.over(now_s)]
        return self._faults

    def draw(self, path: str, query: str, api_key: str, user: int | None, now_s: float) -> Injected:
        """The faults that befall this request; each is used up by one."""
        if not self._faults:
            return Injected()
        drawn = Injected(chance=self.chance)
        for fault in self.active(now_s):
            if not fault.matches(path, query, api_key, user):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            if fault.probability < 1.0 and self.chance.random() >= fault.probability:
                continue
            fault.drawn += 1
            if fault.times is not None:
                fault.times -= 1
            drawn.faults.append(fault)
        return drawn
