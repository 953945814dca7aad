"""Who may open a WebSocket: limits per address and per process, before anything is answered."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_network
from typing import Any

import pytest

from pushserver.clock import ManualClock
from pushserver.limits import Limits
from pushserver.web import admission as admission_module
from pushserver.web.admission import Admission, counted_address
from pushserver.web.http_request import RequestRefused
from pushserver.web.pace import Bucket


class FakeTally:
    def __init__(self) -> None:
        self.addresses: Counter[str] = Counter()

    def enter_address(self, address: str, most: int) -> bool:
        if self.addresses[address] >= most:
            return False
        self.addresses[address] += 1
        return True

    def leave_address(self, address: str) -> None:
        self.addresses[address] -= 1


class World:
    def __init__(self, **limits: int) -> None:
        self.accepting = True
        self.clock, self.tally = ManualClock(), FakeTally()
        proxies = (ip_network("10.0.0.1"),)
        self.admission = Admission(Limits(**limits), self.tally, proxies, self.clock, lambda: self.accepting)

    def refusal(self, environ: dict[str, Any]) -> str:
        """The code of the refusal, "" if the connection is taken."""
        try:
            self.admission.enter(environ)
        except RequestRefused as refusal:
            return refusal.code
        return ""


def of(address: str, forwarded_for: str = "") -> dict[str, Any]:
    return {"REMOTE_ADDR": address, "HTTP_X_FORWARDED_FOR": forwarded_for}


def test_E01_an_address_has_so_many_connections_and_a_place_that_is_left_is_free_again():
    world = World(max_connections_per_address=3)
    assert [world.refusal(of("192.0.2.1")) for _ in range(4)] == ["", "", "", "too_many_connections"]
    assert world.refusal(of("192.0.2.2")) == ""
    world.admission.leave("192.0.2.1")
    assert world.refusal(of("192.0.2.1")) == ""
    assert (world.admission.open, +world.tally.addresses) == (4, {"192.0.2.1": 3, "192.0.2.2": 1})


def test_E01_a_worker_takes_no_more_than_its_own_cap_and_nothing_is_counted_of_whom_it_refuses():
    world = World(max_connections_per_process=10)
    assert [world.refusal(of(f"192.0.2.{n}")) for n in range(1, 12)] == [""] * 10 + ["server_busy"]
    assert "192.0.2.11" not in world.tally.addresses
    world.admission.leave("192.0.2.1")
    assert world.refusal(of("192.0.2.11")) == ""


def test_a_worker_that_leaves_takes_nobody():
    world = World()
    world.accepting = False
    assert world.refusal(of("192.0.2.1")) == "server_busy"


def test_E01_an_address_that_connects_too_often_is_refused_until_time_has_passed():
    world = World(connect_burst_per_address=2, connect_rate_per_address=1)
    for _ in range(2):
        world.admission.leave(world.admission.enter(of("192.0.2.1")))
    assert world.refusal(of("192.0.2.1")) == "too_many_connections"
    assert world.refusal(of("192.0.2.2")) == ""
    world.clock.advance(1)
    assert world.refusal(of("192.0.2.1")) == ""


def test_E01_a_worker_has_a_connect_rate_of_its_own():
    world = World(connect_burst_per_process=2, connect_rate_per_process=1)
    assert [world.refusal(of(f"192.0.2.{n}")) for n in (1, 2, 3)] == ["", "", "server_busy"]
    world.clock.advance(1)
    assert world.refusal(of("192.0.2.3")) == ""


def test_E01_the_default_rates_take_all_phones_of_a_worker_at_once():
    limits = Limits()
    assert limits.connect_burst_per_process >= limits.max_connections_per_process
    assert limits.connect_burst_per_address >= limits.max_connections_per_address


def test_B03_behind_a_trusted_proxy_the_clients_own_address_counts():
    world = World(max_connections_per_address=1)
    assert world.refusal(of("10.0.0.1", "198.51.100.7")) == ""
    assert world.refusal(of("10.0.0.1", "198.51.100.8")) == ""
    assert world.refusal(of("10.0.0.1", "198.51.100.7")) == "too_many_connections"
    # Whoever is no proxy of ours cannot spend another's places, nor get new ones, by what it says.
    assert world.refusal(of("192.0.2.1", "198.51.100.9")) == ""
    assert world.refusal(of("192.0.2.1", "198.51.100.10")) == "too_many_connections"


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("127.0.0.1", ""),
        ("::1", ""),
        ("", ""),
        ("127.0.0.2", "127.0.0.2"),
    ],
)
def test_E01_an_ipv6_client_counts_by_its_network_and_this_machine_not_at_all(address, counted):
    assert counted_address(address) == counted


def test_E01_addresses_without_end_take_no_memory_without_end(monkeypatch):
    monkeypatch.setattr(admission_module, "MANY_ADDRESSES", 10)
    world = World(connect_burst_per_address=1)
    for n in range(100):
        world.admission.enter(of(f"192.0.2.{n}"))
        assert len(world.admission._connects_of) <= 10
        world.clock.advance(0.001)


def test_a_bucket_refuses_what_comes_too_soon_and_never_holds_more_than_its_burst():
    bucket = Bucket(2, 0.5, 0.0)
    assert [bucket.take(0.0) for _ in range(3)] == [True, True, False]
    assert (bucket.take(1.9), bucket.take(2.0)) == (False, True)
    assert bucket.full(1000.0)
    assert [bucket.take(1000.0) for _ in range(3)] == [True, True, False]
