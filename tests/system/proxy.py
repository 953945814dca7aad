"""A TCP proxy between any two parts, that can be told to treat their bytes badly.

    with Proxy(stack.valkey.port) as proxy:
        stack.environ["REDIS_URL"] = f"redis://127.0.0.1:{proxy.port}/0"
        stack.start()
        proxy.latency(0.2)                                  # both directions
        proxy.bandwidth(100_000, Direction.TO_CLIENT)       # bytes a second, one direction
        proxy.affects = lambda link: b"SUBSCRIBE" in link.first_bytes
        proxy.timeout()                                     # swallows what subscribers and Redis say, stays open
        proxy.passes()                                      # all is well again
        proxy.down(); ...; proxy.up()                       # resets what is open and refuses, on the same port

Verbs hold for open and for new connections, until ``passes()``; each has the direction ``BOTH`` unless told.
"TO_CLIENT" is what the server (the target) says. The proxy works in a thread of its own.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import threading
from collections.abc import Callable
from types import TracebackType

from tests.system.proxy_links import LOOK_EVERY_S, WELL, Direction, Link, Pump, Treatment

__all__ = ["Direction", "Link", "Proxy"]


class Proxy:
    """Listens on ``port`` of 127.0.0.1 and connects on to ``target_port``; see the module's text."""

    def __init__(self, target_port: int, target_host: str = "127.0.0.1", *, receive_buffer: int | None = None) -> None:
        """``receive_buffer``: bytes the kernel may keep for the proxy, so that a slow link is felt soon."""
        self._target = (target_host, target_port)
        self._receive_buffer = receive_buffer
        self.treatments = {Direction.TO_SERVER: Treatment(), Direction.TO_CLIENT: Treatment()}
        #: Which links the treatments are for.
        self.affects: Callable[[Link], bool] = lambda link: True
        self.links: set[Link] = set()
        #: Connections taken since the start.
        self.accepted = 0
        self._listener: socket.socket | None = None
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self.up()

    # --- verbs -----------------------------------------------------------------------------------------------

    def latency(self, seconds: float, direction: Direction = Direction.BOTH) -> None:
        """Pass everything on so much later."""
        self._treat(direction, "latency_s", seconds)

    def bandwidth(self, bytes_per_s: float, direction: Direction = Direction.BOTH) -> None:
        self._treat(direction, "bytes_per_s", bytes_per_s)

    def slicer(self, bytes_a_write: int, direction: Direction = Direction.BOTH, pause_s: float = 0.0) -> None:
        """Pass on in writes of at most so many bytes, with a pause after each."""
        self._treat(direction, "slice_pause_s", pause_s)
        self._treat(direction, "slice_bytes", bytes_a_write)

    def timeout(self, direction: Direction = Direction.BOTH) -> None:
        """Swallow every byte, keep the connections open and take new ones; what was swallowed is lost for good."""
        self._treat(direction, "swallow", True)

    def hold(self, direction: Direction = Direction.BOTH) -> None:
        """Pass nothing on, and all of it after ``passes()``: what a network does that was cut and came back."""
        self._treat(direction, "hold", True)

    def limit(self, bytes_more: int, direction: Direction = Direction.BOTH) -> None:
        """End each connection when so many more bytes of it have passed."""
        self._treat(direction, "end_after_bytes", bytes_more)

    def passes(self) -> None:
        """Treat everything well again (not: come up again)."""
        self.treatments = {Direction.TO_SERVER: Treatment(), Direction.TO_CLIENT: Treatment()}

    def reset(self) -> int:
        """Reset (RST) every connection that ``affects`` names; how many that were. New ones are taken."""
        return self._call(self._reset)

    def down(self) -> None:
        """Refuse new connections and reset the open ones."""
        self._call(self._down)

    def up(self) -> None:
        """Listen (again), on the same port as before."""
        self._call(self._up)

    def close(self) -> None:
        self.down()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --- in the proxy's thread -------------------------------------------------------------------------------

    def _call(self, change: Callable[[], list[Link]]) -> int:
        """Run it there and wait until the links it ends are gone; how many those are."""

        async def run() -> int:
            ended = change()
            while self.links & set(ended):
                await asyncio.sleep(LOOK_EVERY_S)
            return len(ended)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def _treatment(self, link: Link, direction: Direction) -> Treatment:
        return self.treatments[direction] if self.affects(link) else WELL

    def _treat(self, direction: Direction, name: str, value: object) -> None:
        for each, treatment in self.treatments.items():
            if direction in (each, Direction.BOTH):
                setattr(treatment, name, value)

    def _up(self) -> list[Link]:
        if self._listener is None:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self._receive_buffer is not None:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
            listener.bind(("127.0.0.1", self.port))
            listener.listen(1024)
            listener.setblocking(False)
            self.port = listener.getsockname()[1]
            self._listener = listener
            self._loop.add_reader(listener, self._accept)
        return []

    def _down(self) -> list[Link]:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        return self._end(list(self.links))

    def _reset(self) -> list[Link]:
        return self._end([link for link in self.links if self.affects(link)])

    @staticmethod
    def _end(links: list[Link]) -> list[Link]:
        for link in links:
            link.reset()
        return links

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except OSError:
            return  # the client was faster
        self.accepted += 1
        link = Link(client, socket.socket())
        self.links.add(link)
        link.task = self._loop.create_task(self._serve(link))

    async def _serve(self, link: Link) -> None:
        pumps: list[asyncio.Task[None]] = []
        try:
            for end in (link.client, link.server):
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._receive_buffer is not None:
                link.server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
            await self._loop.sock_connect(link.server, self._target)
            for direction in (Direction.TO_SERVER, Direction.TO_CLIENT):
                pump = Pump(link, direction, functools.partial(self._treatment, link, direction))
                pumps += [self._loop.create_task(pump.read()), self._loop.create_task(pump.write())]
            await asyncio.gather(*pumps)
        except OSError:
            pass  # either end went away, or a verb ended the link: then the other end goes as well
        finally:
            for task in pumps:
                task.cancel()
            # The event loop must have let go of the sockets before their numbers are free for others.
            await asyncio.gather(*pumps, return_exceptions=True)
            link.client.close()
            link.server.close()
            self.links.discard(link)
