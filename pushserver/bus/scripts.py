"""Loads the Lua scripts that stand beside this file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError, ReadOnlyError


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

    def pipelined(self, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        """Several runs, each ``(keys, args)``, in one round trip; a run that failed has its error in its place.

        Each succeeds or fails on its own: when an error is raised, some may have been done.
        """
        pipeline = self._client.pipeline(transaction=False)
        for keys, args in calls:
            pipeline.execute_command("EVALSHA", self.sha, len(keys), *keys, *args)
        answers = pipeline.execute(raise_on_error=False)
        return [
            # Redis was restarted, or is another one now: alone it brings the text along, to the master.
            self(keys, args) if isinstance(answer, NoScriptError | ReadOnlyError) else answer
            for (keys, args), answer in zip(calls, answers, strict=True)
        ]


def load(client: Any, *names: str) -> Script:
    """The script ``name.lua``, or several as one: those in front define what the last one uses. Nothing is sent yet."""
    folder = files("pushserver.bus")
    return Script(client, "\n".join(folder.joinpath(f"{name}.lua").read_text(encoding="utf-8") for name in names))
