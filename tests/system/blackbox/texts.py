"""Everything a deployment printed, exported, or keeps in the clear, to be searched for its secrets."""

from __future__ import annotations

import contextlib
import urllib.request

import psutil
import redis

from pushserver.exchange_sim.credentials import demo_credentials
from tests.system.harness import Stack


def secrets_of(stack: Stack, tokens: dict[int, str]) -> dict[str, str]:
    """Name to secret: keys and secrets of the exchange, passwords, tokens, the signing and the encryption keys."""
    secrets = {name: stack.environ[name] for name in ("JWT_SECRETS", "CREDENTIALS_KEYS")}
    for user in range(1, stack.users + 1):
        api_key, api_secret = demo_credentials(user)
        secrets |= {
            f"API key {user}": api_key,
            f"API secret {user}": api_secret,
            f"password {user}": f"password-{user}",
        }
    return secrets | {f"token of user {user}": token for user, token in tokens.items()}


def texts_of(stack: Stack) -> dict[str, str]:
    """Name of the place to its text. What is not there any more is left out."""
    texts = {}
    for process in stack.processes:
        if process.name == "exchange":
            continue  # it may say what it likes of its own keys
        texts[f"log of {process.name}"] = process.log()
        with contextlib.suppress(psutil.Error):
            own = psutil.Process(process.pid)
            texts[f"arguments of {process.name}"] = "\n".join(
                " ".join(one.cmdline()) for one in (own, *own.children(recursive=True))
            )
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(f"http://127.0.0.1:{stack.web_metrics_port}/metrics", timeout=5) as page,
    ):
        texts["web metrics"] = page.read().decode()
    with contextlib.suppress(redis.exceptions.RedisError):
        texts["Redis"] = plain_dump(stack.redis_url)
    return texts


def plain_dump(redis_url: str) -> str:
    """Every key of Redis with its content, as text."""
    readers = {"string": "get", "hash": "hgetall", "set": "smembers"}
    lines = []
    with redis.Redis.from_url(redis_url, decode_responses=True, encoding_errors="replace") as client:
        for key in client.scan_iter(count=500):
            kind = client.type(key)
            ranged = {"list": client.lrange, "zset": client.zrange, "stream": None}.get(kind)
            if kind == "stream":
                content = client.xrange(key)
            elif ranged is not None:
                content = ranged(key, 0, -1)
            else:
                content = getattr(client, readers.get(kind, "type"))(key)
            lines.append(f"{key} {content}")
    return "\n".join(lines)
