"""Loads the Lua scripts that stand beside this file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError


class Script:
    """``script(keys=…, args=…)`` runs it; sent by its hash, and with its text where Redis does not know it yet.

    The library's own loads the text into every node of a cluster first, and so fails while any of them is away.
    """

    def __init__(self, client: Any, text: str) -> None:
        self._client = client
        self._text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, keys: Sequence[str], args: Sequence[Any] = ()) -> Any:
        try:
            return self._client.execute_command("EVALSHA", self.sha, len(keys), *keys, *args)
        except NoScriptError:
            return self._client.execute_command("EVAL", self._text, len(keys), *keys, *args)


def load(client: Any, name: str) -> Script:
    """The script ``name.lua``; nothing is sent yet."""
    return Script(client, files("pushserver.bus").joinpath(f"{name}.lua").read_text(encoding="utf-8"))
