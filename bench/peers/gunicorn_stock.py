"""gunicorn for the stock peer: its own gevent-websocket worker, room for all connections, nothing of ours."""

worker_class = "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"
worker_connections = 10_000
control_socket_disable = True
graceful_timeout = 3
