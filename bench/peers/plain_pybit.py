"""What a fetch round costs with pybit as it comes: three calls for each user, one user after another.

Prints a JSON line: rounds, seconds, cpu_s (of this process, start-up and the first round of each user not counted).
"""

from __future__ import annotations

import json
import logging
import time

import click
from pybit.unified_trading import HTTP

from pushserver.exchange_sim.credentials import demo_credentials


def session_of(url: str, number: int) -> HTTP:
    api_key, api_secret = demo_credentials(number)
    session = HTTP(api_key=api_key, api_secret=api_secret)
    session.endpoint = url
    return session


def fetch(session: HTTP) -> None:
    session.get_wallet_balance(accountType="UNIFIED")
    session.get_positions(category="linear", settleCoin="USDT")
    session.get_open_orders(category="linear", settleCoin="USDT")


@click.command()
@click.option("--url", required=True)
@click.option("--users", type=int, required=True)
@click.option("--seconds", type=float, required=True)
def main(url: str, users: int, seconds: float) -> None:
    """Fetch all users round robin, each through a session of its own that is kept."""
    logging.getLogger("pybit").setLevel(logging.CRITICAL)
    sessions = [session_of(url, number) for number in range(1, users + 1)]
    for session in sessions:
        fetch(session)
    rounds = 0
    start_s, cpu_before_s = time.monotonic(), time.process_time()
    while time.monotonic() < start_s + seconds:
        fetch(sessions[rounds % users])
        rounds += 1
    elapsed_s = time.monotonic() - start_s
    print(json.dumps({"rounds": rounds, "seconds": elapsed_s, "cpu_s": time.process_time() - cpu_before_s}))


if __name__ == "__main__":
    main()
