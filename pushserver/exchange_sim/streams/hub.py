"""All streams of the exchange: who may connect, who is told what, who has been quiet for too long."""

from __future__ import annotations

import re
import socket
from collections import Counter, defaultdict, deque
from typing import Any
from urllib.parse import parse_qs

from pushserver.exchange_sim.accounts import Account
from pushserver.exchange_sim.http_messages import Request
from pushserver.exchange_sim.streams.misfortunes import Misfortunes
from pushserver.exchange_sim.streams.private import PrivateSession
from pushserver.exchange_sim.streams.public import PublicSession
from pushserver.exchange_sim.streams.session import Session
from pushserver.exchange_sim.streams.socket import StreamSocket, refuse
from pushserver.exchange_sim.world import World

PRIVATE_PATH = "/v5/private"
PUBLIC_PATHS = {"/v5/public/linear": "linear", "/v5/public/inverse": "inverse"}
#: Without a word of the client a stream is closed after so long; a URL parameter shortens it.
IDLE_S = 600.0
ACTIVE_TIME = re.compile(r"([0-9]{1,3})([sm])")
#: New connections of one address.
MOST_CONNECTS, CONNECTS_WINDOW_S = 500, 300.0
TOO_MANY = "Too many connections, please try again later"


class _Stranger:
    """A connection before its handshake, to faults."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.user: int | None = None
        self.outlet = None


class Hub:
    """Told by the world of every change; serves each connection in the greenlet that calls ``serve``."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.clear()
        world.followers.append(self)

    def clear(self) -> None:
        """No streams, no faults, no counts; limits as at the start."""
        for session in list(getattr(self, "_sessions", ())):
            session.outlet.close(1001)
        self.misfortunes = Misfortunes(self._world.clock.monotonic_s)
        self.most_connects = MOST_CONNECTS
        self.counts: Counter[str] = Counter()
        self._sessions: dict[Session, None] = {}
        self._of_user: dict[int, list[PrivateSession]] = defaultdict(list)
        self._connects: dict[str, deque[float]] = defaultdict(deque)
        self._numbers = 0

    def serves(self, path: str) -> bool:
        return path == PRIVATE_PATH or path in PUBLIC_PATHS

    def serve(self, sock: socket.socket, request: Request) -> None:
        """One stream from handshake to end. Raises OSError when the client is gone."""
        kind = "private" if request.path == PRIVATE_PATH else "public"
        self.counts[f"{kind}_connects"] += 1
        refused = self._refusal(request.address, kind)
        if refused is not None:
            self.counts[f"{kind}_refused"] += 1
            refuse(sock, *refused)
            return
        outlet = StreamSocket(sock, request)
        session = self._session(request, outlet)
        self._sessions[session] = None
        try:
            for text in outlet.texts():
                was_known = session.user is not None
                session.receive(text)
                if isinstance(session, PrivateSession) and session.user is not None and not was_known:
                    self._of_user[session.user].append(session)
        finally:
            outlet.cut()
            self._sessions.pop(session, None)
            if isinstance(session, PrivateSession) and session in self._of_user.get(session.user or 0, ()):
                self._of_user[session.user or 0].remove(session)

    def account_changed(self, before: Account | None, after: Account) -> None:
        for session in list(self._of_user.get(after.user, ())) if before is not None else ():
            assert before is not None
            session.account_changed(before, after)

    def market_moved(self, symbols: list[str]) -> None:
        for session in self._sessions:
            if isinstance(session, PublicSession):
                session.market_moved(symbols)

    def close_idle(self) -> None:
        """To be called now and then."""
        now_s = self._world.clock.monotonic_s()
        for session in [each for each in self._sessions if now_s - each.heard_s > each.idle_s]:
            self.counts["idle_closed"] += 1
            session.outlet.close(1000)

    def drop(self, stream: str | None, user: int | None, code: int | None) -> int:
        """Close with ``code``, or cut without one; how many."""
        chosen = [each for each in self._sessions if stream in (None, each.kind) and user in (None, each.user)]
        for session in chosen:
            if code is None:
                session.outlet.cut()  # type: ignore[attr-defined]
            else:
                session.outlet.close(code)
        return len(chosen)

    def report(self) -> dict[str, Any]:
        """Open streams by kind, the users that have private ones, and the counts."""
        kinds = Counter(session.kind for session in self._sessions)
        users = sorted(user for user, sessions in self._of_user.items() if sessions)
        topics = sorted({topic for session in self._sessions for topic in session.topics})
        now_s = self._world.clock.monotonic_s()
        connects = {
            address: sum(at_s > now_s - CONNECTS_WINDOW_S for at_s in seen) for address, seen in self._connects.items()
        }
        return {"open": dict(kinds), "users": users, "topics": topics, "connects": connects, **self.counts}

    def _refusal(self, address: str, kind: str) -> tuple[int, str] | None:
        now_s = self._world.clock.monotonic_s()
        seen = self._connects[address]
        while seen and seen[0] <= now_s - CONNECTS_WINDOW_S:
            seen.popleft()
        seen.append(now_s)
        if len(seen) > self.most_connects:
            return 429, TOO_MANY
        drawn = self.misfortunes.drawn("refuse_handshake", _Stranger(kind))
        return None if drawn is None else (int(drawn.options["status"]), "refused")

    def _session(self, request: Request, outlet: StreamSocket) -> Session:
        self._numbers += 1
        idle_s = idle_limit_s(request.query)
        common = (self._world, outlet, self._numbers, self.misfortunes, idle_s)
        if request.path == PRIVATE_PATH:
            return PrivateSession(*common)
        return PublicSession(*common, category=PUBLIC_PATHS[request.path])


def idle_limit_s(query: str) -> float:
    """``max_active_time=30s`` … ``10m``; anything else is ignored."""
    wanted = ACTIVE_TIME.fullmatch(parse_qs(query).get("max_active_time", [""])[0])
    if wanted is None:
        return IDLE_S
    seconds = int(wanted[1]) * (60 if wanted[2] == "m" else 1)
    return float(seconds) if 30 <= seconds <= IDLE_S else IDLE_S
