"""The web worker: HTTP API, Socket.IO, the console."""
