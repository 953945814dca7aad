"""Connected sockets to the exchange: TCP, through an HTTP proxy where there is one, TLS where the address asks for it.

Proxies of the environment are not looked at: each leads out of another address, with a budget of its own.
"""

from __future__ import annotations

import base64
import ssl
from functools import lru_cache
from typing import Any, TypeAlias

import certifi
import gevent
import gevent.socket
import gevent.ssl

from pushserver.model import Proxy

Socket: TypeAlias = Any

#: A proxy's answer to CONNECT needs no more.
MAX_PROXY_HEAD = 8 * 1024


def open_socket(host: str, port: int, tls: bool, timeout_s: float, proxy: Proxy | None = None) -> Socket:
    """A gevent socket that leads to ``host``; without a timeout of its own.

    Raises:
        OSError: unknown name, no answer in time, a proxy that refuses, or a certificate that is not to be trusted.
    """
    with gevent.Timeout(timeout_s, TimeoutError("no connection in time")):
        if proxy is None:
            plain = gevent.socket.create_connection((host, port))
        else:
            plain = gevent.socket.create_connection((proxy.host, proxy.port))
        try:
            plain.setsockopt(gevent.socket.IPPROTO_TCP, gevent.socket.TCP_NODELAY, 1)
            if proxy is not None:
                _pass_through(plain, proxy, host, port)
            return _context().wrap_socket(plain, server_hostname=host) if tls else plain
        except BaseException:
            plain.close()
            raise


def _pass_through(socket: Socket, proxy: Proxy, host: str, port: int) -> None:
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.login is not None:
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(proxy.login.reveal().encode()).decode()}")
    socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        # One at a time: what follows the head belongs to the tunnel.
        byte = socket.recv(1)
        if not byte or len(head) > MAX_PROXY_HEAD:
            raise ConnectionError("the proxy gave no answer")
        head += byte
    status = head.split(b"\r\n", 1)[0].split(b" ")
    if len(status) < 2 or not status[0].startswith(b"HTTP/1.") or not status[1].startswith(b"2"):
        raise ConnectionRefusedError("the proxy refused the connection")


def _context() -> ssl.SSLContext:
    """TLS with certificate and host name checked, against the system's roots or else certifi's."""
    return _context_with(ssl.get_default_verify_paths().cafile or certifi.where())


@lru_cache(maxsize=4)
def _context_with(roots: str) -> ssl.SSLContext:
    """One for all connections, since loading the roots takes time and memory."""
    context: ssl.SSLContext = gevent.ssl.create_default_context(cafile=roots)
    return context
