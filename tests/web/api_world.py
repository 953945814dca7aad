"""One web worker's API over a real Valkey and SQLite; the exchange is a fake with an answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from pushserver.accounts.store import AccountStore
from pushserver.bus import keys
from pushserver.bus.access import AccessList
from pushserver.bus.connection import connect
from pushserver.bus.health import HealthStore
from pushserver.bus.login_limits import LoginLimits
from pushserver.bus.signals import Signal, parse
from pushserver.bus.states import States
from pushserver.clock import ManualClock, SystemClock
from pushserver.model import Credentials, Secret
from pushserver.observers import RecordingObserver
from pushserver.token_keys import SharedSecrets
from pushserver.tokens import Tokens
from pushserver.web.api.answers import register_error_handlers
from pushserver.web.api.blueprint import create_api
from pushserver.web.api.services import ApiServices
from tests.accounts.conftest import open_store

SIGNING = Secret("signing-" + "k" * 32)
NO_REDIS = Secret("redis://127.0.0.1:1/0")
READ_ONLY = {"readOnly": 1, "permissions": {"Wallet": ["AccountTransfer"], "Options": []}, "deadlineDay": 80}


class FakeExchange:
    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.answer: Any = READ_ONLY
        self.asked: list[Credentials] = []
        self.time_left_s = 0.0

    def key_information(self, user_id: int, credentials: Credentials, deadline_s: float) -> Mapping[str, Any]:
        self.asked.append(credentials)
        self.time_left_s = deadline_s - self.clock.monotonic_s()
        if isinstance(self.answer, Exception):
            raise self.answer
        return dict(self.answer)


class World:
    """One web worker's API and everything it stands on; user alice (4) has password ``pw``."""

    def __init__(self, redis_url: str, directory: Path) -> None:
        self.clock = ManualClock()
        self.database_url = Secret(f"sqlite:///{directory}/api.db")
        created = open_store(self.database_url, SystemClock())
        created.upgrade()
        created.close()
        self.accounts = open_store(self.database_url, self.clock)
        self.accounts.add_user("alice", Secret("pw"), 4)
        self.redis = connect(Secret(redis_url))
        self.observer = RecordingObserver()
        self.exchange = FakeExchange(self.clock)
        self.tokens = Tokens(SharedSecrets([SIGNING]), self.clock, signing_secret=SIGNING)
        self.client = self.serve()

    def serve(
        self,
        *,
        accounts: AccountStore | None = None,
        redis: Any = None,
        tokens: Tokens | None = None,
        cors_origins: tuple[str, ...] | None = None,
    ) -> FlaskClient:
        redis = redis or self.redis
        services = ApiServices(
            accounts=accounts or self.accounts,
            tokens=tokens or self.tokens,
            access=AccessList(redis, self.clock),
            limits=LoginLimits(redis),
            verifier=self.exchange,
            states=States(redis, self.clock),
            health=HealthStore(redis),
            redis_client=redis,
            clock=self.clock,
            observer=self.observer,
        )
        app = Flask("test", static_folder=None)
        register_error_handlers(app)
        app.register_blueprint(create_api(services, cors_origins))

        @app.get("/broken")
        def broken() -> str:
            raise RuntimeError("canary")

        return app.test_client()

    def login(self, name: str = "alice", password: str = "pw", **named: Any) -> TestResponse:
        return self.client.post("/api/auth/login", json={"username": name, "password": password}, **named)

    def bearer(self, token: str | None = None) -> dict[str, str]:
        return {"Authorization": f"Bearer {token or self.tokens.mint(4)}"}


def code(answer: TestResponse) -> str:
    body = answer.get_json()
    assert set(body) == {"error"} and set(body["error"]) == {"code", "message"}
    assert answer.headers["Cache-Control"] == "no-store"
    found: str = body["error"]["code"]
    return found


@contextmanager
def heard(world: World) -> Iterator[list[Signal | None]]:
    """What is signalled inside the block, once it is left."""
    subscription = world.redis.pubsub(ignore_subscribe_messages=True)
    subscription.subscribe(keys.SIGNALS_CHANNEL)
    subscription.get_message(timeout=1)
    yield (found := [])
    while (message := subscription.get_message(timeout=0.1)) is not None:
        found.append(parse(message["data"]))
    subscription.close()
