"""Who is served first when requests to the exchange must wait for the budget."""

from __future__ import annotations

from enum import IntEnum


class Urgency(IntEnum):
    """The lower, the sooner."""

    #: Somebody has just opened a screen.
    NEW_WATCHER = 0
    #: The account has changed, says its stream.
    HINT = 1
    ROUTINE = 2
