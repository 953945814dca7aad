"""Row B03: what a request says of its own origin counts only where a trusted proxy said it."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from pushserver.bus import keys
from pushserver.model import TrustedPeer
from pushserver.web.client_address import ForwardedHeaders, client_address
from tests.web.api_world import World

PROXIES: tuple[TrustedPeer, ...] = (ip_network("192.0.2.1"), ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))


@pytest.mark.parametrize("trusted", [(), PROXIES])
@pytest.mark.parametrize("peer", ["203.0.113.5", "", "::1"])
@pytest.mark.parametrize("forwarded_for", ["", "198.51.100.7", "198.51.100.7, 192.0.2.1", "127.0.0.1", "x"])
def test_B03_an_untrusted_peer_is_the_client_whatever_it_says(
    trusted: tuple[TrustedPeer, ...], peer: str, forwarded_for: str
) -> None:
    assert client_address(peer, forwarded_for, trusted) == peer


@pytest.mark.parametrize(
    ("forwarded_for", "client"),
    [
        ("", "192.0.2.1"),
        ("203.0.113.5", "203.0.113.5"),
        ("198.51.100.7, 203.0.113.5", "203.0.113.5"),
        ("198.51.100.7,203.0.113.5 , 10.1.2.3", "203.0.113.5"),
        ("198.51.100.7, 203.0.113.5, 2001:db8::1, 10.1.2.3", "203.0.113.5"),
        ("10.1.2.3, 10.9.9.9", "10.1.2.3"),
        ("2001:DB9:0:0::5", "2001:db9::5"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("198.51.100.7, ::ffff:10.1.2.3", "198.51.100.7"),
        ("203.0.113.5:61234", "203.0.113.5"),
        ("[2001:db9::5]:61234", "2001:db9::5"),
        ("[2001:db9::5]", "2001:db9::5"),
    ],
)
def test_B03_behind_trusted_proxies_the_right_most_other_address_counts(forwarded_for: str, client: str) -> None:
    assert client_address("192.0.2.1", forwarded_for, PROXIES) == client


@pytest.mark.parametrize(
    "garbage",
    ["unknown", "unix:", "x" * 5000, "999.1.1.1", "203.0.113", "fe80::1%zone", "_hidden", "-", '"1.2.3.4"', "\x00", ""],
)
def test_B03_garbage_is_nobody_and_nothing_to_the_left_of_it_is_believed(garbage: str) -> None:
    assert client_address("192.0.2.1", garbage, PROXIES) == "192.0.2.1"
    assert client_address("192.0.2.1", f"198.51.100.7, {garbage}, 10.1.2.3", PROXIES) == "10.1.2.3"
    assert client_address("192.0.2.1", f"{garbage}, 203.0.113.5", PROXIES) == "203.0.113.5"


def test_B03_an_ipv4_peer_of_a_socket_for_both_families_is_recognised() -> None:
    assert client_address("::ffff:192.0.2.1", "203.0.113.5", PROXIES) == "203.0.113.5"
    assert client_address("::ffff:203.0.113.9", "198.51.100.7", PROXIES) == "203.0.113.9"


def test_B03_a_unix_socket_is_trusted_only_when_it_is_named() -> None:
    assert client_address("", "203.0.113.5", (*PROXIES, "unix")) == "203.0.113.5"
    assert client_address("192.0.2.9", "203.0.113.5", ("unix",)) == "192.0.2.9"


# --- at the edge ------------------------------------------------------------------------------------------------

FORGED = {
    "HTTP_X_FORWARDED_FOR": "203.0.113.5",
    "HTTP_X_FORWARDED_PROTO": "https",
    "HTTP_X_FORWARDED_HOST": "evil.example",
    "HTTP_X_FORWARDED_PORT": "1",
    "HTTP_FORWARDED": "for=203.0.113.5;host=evil.example",
}


def seen(environ: dict[str, Any], trusted: tuple[TrustedPeer, ...] = PROXIES) -> dict[str, Any]:
    """What the application is given."""
    given: list[dict[str, Any]] = []

    def application(environ: dict[str, Any], _start_response: Any) -> list[bytes]:
        given.append(dict(environ))
        return []

    ForwardedHeaders(application, trusted)(environ, None)  # type: ignore[arg-type]
    return given[0]


@pytest.mark.parametrize("peer", [{"REMOTE_ADDR": "203.0.113.9"}, {}])
def test_B03_forwarded_headers_of_an_untrusted_peer_are_gone(peer: dict[str, str]) -> None:
    given = seen({"HTTP_HOST": "a.example", **peer, **FORGED})
    assert given == {"HTTP_HOST": "a.example", "REMOTE_ADDR": peer.get("REMOTE_ADDR", "")}


@pytest.mark.parametrize("peer", [{"REMOTE_ADDR": "192.0.2.1"}, {}])
def test_B03_forwarded_headers_of_a_trusted_proxy_stay(peer: dict[str, str]) -> None:
    assert seen({**peer, **FORGED}, (*PROXIES, "unix")) == {"REMOTE_ADDR": "203.0.113.5", **FORGED}


@pytest.mark.parametrize(("trusted", "counted"), [((), "192.0.2.1"), (PROXIES, "203.0.113.5")])
def test_A15_failed_logins_count_for_the_address_behind_a_trusted_proxy_only(
    redis_url: str, tmp_path: Path, trusted: tuple[TrustedPeer, ...], counted: str
) -> None:
    world = World(redis_url, tmp_path)
    application = world.client.application
    application.wsgi_app = ForwardedHeaders(application.wsgi_app, trusted)  # type: ignore[method-assign]
    answer = world.login(
        password="wrong", environ_base={"REMOTE_ADDR": "192.0.2.1"}, headers={"X-Forwarded-For": "203.0.113.5"}
    )
    assert answer.status_code == 401
    for address in ("192.0.2.1", "203.0.113.5"):
        known = world.redis.exists(keys.login_attempts(f"address:{address}"))
        assert bool(known) == (address == counted), address
