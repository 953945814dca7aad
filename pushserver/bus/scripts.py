"""Loads the Lua scripts that stand beside this file."""

from __future__ import annotations

from importlib.resources import files
from typing import Any


def load(client: Any, name: str) -> Any:
    """The script ``name.lua`` as a callable ``script(keys=…, args=…, client=…)``; sent by hash, text once."""
    return client.register_script(files("pushserver.bus").joinpath(f"{name}.lua").read_text(encoding="utf-8"))
