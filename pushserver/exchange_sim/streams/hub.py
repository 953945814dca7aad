"""All streams of the exchange: who may connect, who is told what, who has been quiet for too long."""

from __future__ import annotations

import random
import re
import socket
from collections import Counter
from typing import Any
from urllib.parse import parse_qs

from pushserver.exchange_sim.accounts import Account
from pushserver.exchange_sim.http_messages import Request
from pushserver.exchange_sim.streams.account_events import account_events
from pushserver.exchange_sim.streams.connects import ConnectGate
from pushserver.exchange_sim.streams.misfortunes import Misfortune, Misfortunes
from pushserver.exchange_sim.streams.private import Claim, PrivateSession
from pushserver.exchange_sim.streams.public import PublicSession
from pushserver.exchange_sim.streams.session import Session
from pushserver.exchange_sim.streams.socket import StreamSocket, refuse
from pushserver.exchange_sim.world import World

PRIVATE_PATH = "/v5/private"
PUBLIC_PATHS = {"/v5/public/linear": "linear", "/v5/public/inverse": "inverse"}
#: Without a word of the client a stream is closed after so long; a URL parameter shortens it.
IDLE_S = 600.0
TEND_EVERY_S = 5.0
ACTIVE_TIME = re.compile(r"([0-9]{1,3})([sm])")
TOO_MANY = "Too many connections, please try again later"


class Hub:
    """Told by the world of every change; serves each connection in the greenlet that calls ``serve``."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sessions: dict[Session, None] = {}
        self.clear()
        world.followers.append(self)

    def clear(self) -> None:
        """No streams, no faults, no counts; limits as at the start."""
        for session in list(self._sessions):
            session.outlet.close(1001)
        chance = random.Random(f"{self._world.seed}:streams")  # noqa: S311 - invented misfortune
        self.misfortunes = Misfortunes(self._world.clock.monotonic_s, chance)
        self.gate = ConnectGate()
        self.counts: Counter[str] = Counter()
        self._sessions = {}
        self._public: dict[PublicSession, None] = {}
        self._of_user: dict[int, list[PrivateSession]] = {}
        self._numbers = 0
        self._tended_s = self._world.clock.monotonic_s()

    def serves(self, path: str) -> bool:
        return path == PRIVATE_PATH or path in PUBLIC_PATHS

    def serve(self, sock: socket.socket, request: Request, already_read: bytes = b"") -> None:
        """One stream from handshake to end. Raises OSError when the client is gone."""
        kind = "private" if request.path == PRIVATE_PATH else "public"
        self.counts[f"{kind}_connects"] += 1
        if not self.gate.ask(request.address, self._world.clock.monotonic_s()):
            self.counts[f"{kind}_refused"] += 1
            refuse(sock, 429, TOO_MANY)
            return
        refused = self.misfortunes.drawn("refuse_handshake", Claim(kind, None))
        if refused is not None:
            self.counts[f"{kind}_refused"] += 1
            refuse_as_told(sock, refused)
            return
        outlet = StreamSocket(sock, request, already_read)
        session = self._session(request, outlet)
        outlet.answers_ping = session.hears_ping_frame
        self._sessions[session] = None
        try:
            for text in outlet.texts():
                session.receive(text)
        finally:
            outlet.cut()
            self._forget(session)

    def _forget(self, session: Session) -> None:
        self._sessions.pop(session, None)
        if isinstance(session, PublicSession):
            self._public.pop(session, None)
        if isinstance(session, PrivateSession) and session.user is not None:
            streams = self._of_user.get(session.user, [])
            if session in streams:
                streams.remove(session)
            if not streams:
                self._of_user.pop(session.user, None)

    def _knows(self, session: PrivateSession) -> None:
        """A stream was authenticated."""
        assert session.user is not None, "who is authenticated is somebody"
        streams = self._of_user.setdefault(session.user, [])
        if session not in streams:
            streams.append(session)

    def account_changed(self, before: Account | None, after: Account) -> None:
        streams = self._of_user.get(after.user)
        if before is None or not streams:
            return
        events = list(account_events(before, after, self._world.market))
        for session in list(streams):
            session.account_changed(events, after.version)

    def account_deleted(self, user: int) -> None:
        self.drop("private", user, None)

    def market_moved(self, symbols: list[str]) -> None:
        for session in list(self._public):
            session.market_moved(symbols)

    def tend(self) -> None:
        """To be called now and then: ends streams that are quiet, keeps tickers that are quiet heard."""
        now_s = self._world.clock.monotonic_s()
        if now_s < self._tended_s + TEND_EVERY_S:
            return
        self._tended_s = now_s
        for ticker in list(self._public):
            ticker.beat(now_s)
        for session in [each for each in self._sessions if now_s - each.heard_s > each.idle_s]:
            self.counts["idle_closed"] += 1
            session.outlet.close(1000)

    def chosen(self, stream: str | None, user: int | None) -> list[Session]:
        """The open streams of a kind (None: both) and a user (None: all)."""
        if user is not None and stream != "public":
            return list(self._of_user.get(user, ()))
        return [each for each in self._sessions if stream in (None, each.kind) and user in (None, each.user)]

    def drop(self, stream: str | None, user: int | None, code: int | None) -> int:
        """Close with ``code``, or cut without one; how many."""
        chosen = self.chosen(stream, user)
        for session in chosen:
            if code is None:
                session.outlet.cut()
            else:
                session.outlet.close(code)
        return len(chosen)

    def report(self) -> dict[str, Any]:
        """Open streams by kind, the users that have private ones (``several``: more than one), and the counts."""
        kinds = Counter(session.kind for session in self._sessions)
        topics = sorted({topic for session in self._sessions for topic in session.topics})
        return {
            "open": dict(kinds),
            "users": sorted(self._of_user),
            "several": {str(user): len(streams) for user, streams in self._of_user.items() if len(streams) > 1},
            "topics": topics,
            "connects": self.gate.connects(self._world.clock.monotonic_s()),
            "most_connects": dict(self.gate.most_in_a_window),
            **self.counts,
        }

    def _session(self, request: Request, outlet: StreamSocket) -> Session:
        self._numbers += 1
        common = (self._world, outlet, self._numbers, self.misfortunes, idle_limit_s(request.query))
        if request.path == PRIVATE_PATH:
            return PrivateSession(*common, address=request.address, known=self._knows)
        session = PublicSession(*common, category=PUBLIC_PATHS[request.path])
        self._public[session] = None
        return session


def refuse_as_told(sock: socket.socket, fault: Misfortune) -> None:
    """With an HTTP status; with ``hang_s`` nothing is said for so long and then the connection ends."""
    if fault.options["hang_s"] > 0:
        sock.settimeout(fault.options["hang_s"])
        sock.recv(1)  # ends when the client leaves; TimeoutError (an OSError) ends the connection too
    else:
        refuse(sock, int(fault.options["status"]), "refused")


def idle_limit_s(query: str) -> float:
    """``max_active_time=30s`` … ``10m``; anything else is ignored."""
    wanted = ACTIVE_TIME.fullmatch(parse_qs(query).get("max_active_time", [""])[0])
    if wanted is None:
        return IDLE_S
    seconds = int(wanted[1]) * (60 if wanted[2] == "m" else 1)
    return float(seconds) if 30 <= seconds <= IDLE_S else IDLE_S
