"""What may go wrong with a stream, set by a script: for which stream, for whom, how often, how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import gevent

Options = dict[str, Any]

#: Kind to its options and their defaults.
KINDS: dict[str, Options] = {
    "refuse_handshake": {"status": 503},
    "refuse_auth": {"message": "Params Error"},
    "refuse_topic": {"message": "error:handler not found"},
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

    kind: str
    user: int | None

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
    held: dict[int, str] = field(default_factory=dict)


class Misfortunes:
    """All that is set. ``now_s`` tells the monotonic time."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._set: list[Misfortune] = []
        self._last_number = 0

    def add(self, kind: str, options: Options, **conditions: Any) -> Misfortune:
        """Raises ValueError for an unknown kind or option."""
        if kind not in KINDS:
            raise ValueError(f"no fault of streams is called {kind!r}; there are {', '.join(sorted(KINDS))}")
        unknown = set(options) - set(KINDS[kind])
        if unknown:
            raise ValueError(f"fault {kind} has no option {', '.join(sorted(unknown))}")
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

    def drawn(self, kind: str, target: Target) -> Misfortune | None:
        """The first of that kind that strikes the target; one of its ``times`` is used up."""
        for each in self.active() if self._set else ():
            if each.kind == kind and each.stream in (None, target.kind) and each.user in (None, target.user):
                if each.times is not None:
                    each.times -= 1
                return each
        return None

    def strikes(self, kind: str, target: Target) -> bool:
        return self.drawn(kind, target) is not None

    def text(self, kind: str, target: Target) -> str:
        """The text with which something is refused; empty when it is not."""
        drawn = self.drawn(kind, target)
        return "" if drawn is None else str(drawn.options["message"])

    def distorted(self, text: str, target: Target) -> list[str]:
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
            held = swapped.held.pop(id(target), None)
            if held is None:
                swapped.held[id(target)] = text
                return []
            texts.append(held)
        if (delayed := self.drawn("delay", target)) is not None:
            for each in texts:
                gevent.spawn_later(delayed.options["seconds"], target.outlet.send, each)
            return []
        return texts
