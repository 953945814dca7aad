"""The same job with the libraries as they come: Flask-SocketIO rooms and a Redis message queue.

    gunicorn -k geventwebsocket.gunicorn.workers.GeventWebSocketWorker -w 4 bench.peers.stock_flask_socketio:app

Each client is in four rooms of its own, as the program's clients are; nobody is asked for a token.
"""

from gevent import monkey

monkey.patch_all()

import os

from flask import Flask
from flask_socketio import SocketIO, emit, join_room

TYPES = ["balance", "positions", "pnl", "orders"]

app = Flask("stock")
socketio = SocketIO(
    app,
    message_queue=os.environ["REDIS_URL"],
    channel="stock",
    async_mode="gevent",
    transports=["websocket"],
    cors_allowed_origins="*",
)


@app.get("/readyz")
def ready() -> str:
    return "ready"


@socketio.on("subscribe_trading")
def subscribe(payload: dict) -> None:
    for name in TYPES:
        join_room(f"{name}_{payload['user_id']}")
    emit("subscribed", {"types": TYPES})
