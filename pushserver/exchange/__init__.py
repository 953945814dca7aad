"""Bybit behind a small port: requests, answers, typed failures."""
