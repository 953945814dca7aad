"""The push worker. Empty of imports: its door patches for gevent first."""
