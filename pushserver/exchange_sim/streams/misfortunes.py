"""What may go wrong with a stream, set by a script: for which stream, for whom, how often, how long."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import gevent

Options = dict[str, Any]

#: Kind to its options and their defaults.
KINDS: dict[str, Options] = {
    "refuse_handshake": {"status": 503, "hang_s": 0.0},
    "refuse_auth": {"message": "Params Error"},
    "refuse_topic": {"message": "error:handler not found", "topic": ""},
    "filled_twice": {},
    "silent": {},
    "no_pong": {},
    "mute": {},
    "delay": {"seconds": 1.0},
    "duplicate": {"copies": 1},
    "reorder": {},
    "replace": {"text": "{"},
    "precede": {"text": '{"topic":"unknown","data":[{}]}'},
}


class Target(Protocol):
    """The stream that is struck; its ``kind`` is private or public, ``user`` None until it is known."""

    @property
    def kind(self) -> str: ...

    @property
    def user(self) -> int | None: ...


class Receiver(Target, Protocol):
    @property
    def outlet(self) -> Any: ...


@dataclass(slots=True)
class Misfortune:
    """``times`` counts down with each message (or handshake) struck; ``until_s`` is monotonic."""

    number: int
    kind: str
    options: Options
    stream: str | None = None
    user: int | None = None
    times: int | None = None
    until_s: float | None = None
    probability: float = 1.0
    held: WeakKeyDictionary[Any, str] = field(default_factory=WeakKeyDictionary)
    waiting: WeakKeyDictionary[Any, deque[str]] = field(default_factory=WeakKeyDictionary)

    def description(self) -> dict[str, Any]:
        names = ("number", "kind", "options", "stream", "user", "times", "until_s", "probability")
        return {name: getattr(self, name) for name in names}


class Misfortunes:
    """All that is set. ``now_s`` tells the monotonic time; ``chance`` decides where a fault has a probability."""

    def __init__(self, now_s: Callable[[], float], chance: random.Random) -> None:
        self._now_s = now_s
        self._chance = chance
        self._set: list[Misfortune] = []
        self._last_number = 0

    def add(self, kind: str, options: Options, **conditions: Any) -> Misfortune:
        """Raises ValueError for an unknown kind or option."""
        if kind not in KINDS:
            raise ValueError(f"no fault of streams is called {kind!r}; there are {', '.join(sorted(KINDS))}")
        for name, value in options.items():
            default = KINDS[kind].get(name)
            if default is None:
                raise ValueError(f"fault {kind} has no option {name!r}; it has {', '.join(KINDS[kind]) or 'none'}")
            if not (isinstance(value, type(default)) or (type(default) is float and type(value) is int)):
                raise ValueError(f"option {name} of fault {kind} must be like {default!r}")
        self._last_number += 1
        added = Misfortune(self._last_number, kind, KINDS[kind] | options, **conditions)
        self._set.append(added)
        return added

    def clear(self, number: int | None = None) -> None:
        self._set = [each for each in self._set if number is not None and each.number != number]

    def active(self) -> list[Misfortune]:
        now_s = self._now_s()
        self._set = [
            each for each in self._set if each.times != 0 and (each.until_s is None or now_s < each.until_s)
        ]  # fmt: skip
        return self._set

    def drawn(
        self, kind: str, target: Target, fits: Callable[[Options], bool] = lambda options: True
    ) -> Misfortune | None:
        """The first of that kind that strikes the target; one of its ``times`` is used up."""
        for each in self.active() if self._set else ():
            if each.kind != kind or each.stream not in (None, target.kind) or each.user not in (None, target.user):
                continue
            if not fits(each.options) or (each.probability < 1.0 and self._chance.random() >= each.probability):
                continue
            if each.times is not None:
                each.times -= 1
            return each
        return None

    def topic_refusal(self, target: Target, topics: list[str]) -> str:
        """The text with which a subscription is refused; empty when it is not."""
        drawn = self.drawn("refuse_topic", target, lambda options: options["topic"] in ("", *topics))
        return "" if drawn is None else str(drawn.options["message"])

    def strikes(self, kind: str, target: Target) -> bool:
        return self.drawn(kind, target) is not None

    def distorted(self, text: str, target: Receiver) -> list[str]:
        """What is sent in the place of one message, now; what is delayed is sent later by itself."""
        if not self._set:
            return [text]
        if self.strikes("silent", target) or self.strikes("mute", target):
            return []
        texts = [text]
        if (replaced := self.drawn("replace", target)) is not None:
            texts = [replaced.options["text"]]
        if (preceded := self.drawn("precede", target)) is not None:
            texts.insert(0, preceded.options["text"])
        if (doubled := self.drawn("duplicate", target)) is not None:
            texts += [text] * doubled.options["copies"]
        if (swapped := self.drawn("reorder", target)) is not None:
            held = swapped.held.pop(target, None)
            if held is None:
                swapped.held[target] = text
                return []
            texts.append(held)
        if (delayed := self.drawn("delay", target)) is not None:
            self._send_later(delayed, target, texts)
            return []
        return texts

    def _send_later(self, fault: Misfortune, target: Receiver, texts: list[str]) -> None:
        """Timers that are due together fire in any order: each sends whatever has waited longest."""
        waiting = fault.waiting.setdefault(target, deque())
        for each in texts:
            waiting.append(each)
            gevent.spawn_later(fault.options["seconds"], lambda: target.outlet.send(waiting.popleft()))
