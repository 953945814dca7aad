"""The HTTP API of contract section 3: login and the user's own exchange key."""
