"""The web console: a static page and the blueprint that serves it."""
