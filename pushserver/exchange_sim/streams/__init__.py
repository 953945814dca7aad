"""The WebSocket side of the simulated exchange: private account streams and public tickers."""
