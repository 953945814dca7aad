"""Pushes each user's exchange account (balance, positions, pnl, orders) to their phones.

Kept empty of imports: the doors (``wsgi.py``, ``pushserver/workers/__main__.py``) run this file before they
have patched the standard library for gevent.
"""
