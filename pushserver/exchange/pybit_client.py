"""pybit, made safe to use for many users: no session, no retries, no handlers, no key in a ``repr``.

pybit builds the query, signs and checks; its ``client`` attribute is the seam where our transport goes in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from pybit.unified_trading import HTTP

from pushserver.exchange.port import Endpoint
from pushserver.model import Credentials

#: How much later than stamped a request may arrive.
RECV_WINDOW_MS = 5_000
#: An empty set would mean pybit's own list of codes to sleep and retry on; this one is no code.
NO_CODE = 999_999_999


class Client(Protocol):
    """What pybit uses of its ``requests.Session``."""

    headers: dict[str, str]

    def prepare_request(self, request: Any) -> Any: ...

    def send(self, request: Any, timeout: float) -> Any: ...


class PybitClient(HTTP):
    """One request's pybit; ``stamp_ms`` tells the exchange's time."""

    stamp_ms: Callable[[], int]

    def __repr__(self) -> str:
        # The dataclass's own would print key and secret.
        return "<PybitClient>"

    def _prepare_headers(
        self, payload: str, recv_window: int, content_type: str = "application/json"
    ) -> dict[str, str]:  # fmt: skip
        """pybit's own, with our stamp instead of the machine's clock."""
        stamp_ms = self.stamp_ms()
        return {
            "Content-Type": content_type,
            "X-BAPI-API-KEY": self.api_key,
            "X-BAPI-SIGN": self._auth(payload=payload, recv_window=recv_window, timestamp=stamp_ms),
            "X-BAPI-SIGN-TYPE": "2",
            "X-BAPI-TIMESTAMP": str(stamp_ms),
            "X-BAPI-RECV-WINDOW": str(recv_window),
        }


METHODS: Mapping[Endpoint, Callable[..., Any]] = {
    Endpoint.WALLET: PybitClient.get_wallet_balance,
    Endpoint.POSITIONS: PybitClient.get_positions,
    Endpoint.CLOSED_PNL: PybitClient.get_closed_pnl,
    Endpoint.OPEN_ORDERS: PybitClient.get_open_orders,
    Endpoint.KEY_INFORMATION: PybitClient.get_api_key_information,
    Endpoint.SERVER_TIME: PybitClient.get_server_time,
    Endpoint.TICKERS: PybitClient.get_tickers,
}


class Pybit:
    """Makes a client per request out of one template, which costs a copy and not a session."""

    def __init__(self, rest_url: str) -> None:
        logger = logging.getLogger("pybit._http_manager")
        handlers = list(logger.handlers)
        template = PybitClient(
            recv_window=RECV_WINDOW_MS,
            retry_codes={NO_CODE},
            max_retries=1,
            return_response_headers=True,
        )
        # While the root logger has no handler, every client made adds one.
        for handler in [handler for handler in logger.handlers if handler not in handlers]:
            logger.removeHandler(handler)
        template.client.close()
        template.client = None
        # Whom to ask is the transport's business: what it is given are targets.
        template.endpoint = urlsplit(rest_url).path.rstrip("/")
        self._template = template

    def get(
        self,
        endpoint: Endpoint,
        client: Client,
        credentials: Credentials | None,
        stamp_ms: Callable[[], int],
        parameters: Mapping[str, object],
    ) -> Mapping[str, Any]:
        """The envelope that ``client`` brought back. Raises what ``client`` raises, and pybit's own exceptions."""
        # A third of what copy.copy costs, at each request.
        bound = PybitClient.__new__(PybitClient)
        bound.__dict__.update(self._template.__dict__)
        bound.client = client
        bound.stamp_ms = stamp_ms
        if credentials is not None:
            bound.api_key = credentials.api_key
            bound.api_secret = credentials.api_secret.reveal()
        envelope: Mapping[str, Any] = METHODS[endpoint](bound, **parameters)[0]
        return envelope
