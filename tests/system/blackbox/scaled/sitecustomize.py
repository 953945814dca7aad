"""Shortens the silence after a ban, in processes that are started with this folder on PYTHONPATH.

The environment variable ``PUSHSERVER_BAN_S`` is how long the product believes that the exchange wants silence after a
403 that names no time: ten minutes in truth, which no test can wait for. Nothing else is changed.
"""

import importlib.abc
import importlib.machinery
import os
import sys

MODULE, CONSTANT = "pushserver.exchange.answers_table", "BAN_S"


class _Scaler(importlib.abc.MetaPathFinder):
    """Changes the constant in the text of its module, so that all that is made of it follows."""

    def find_spec(self, name, path=None, target=None):
        if name != MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)

        def execute(module):
            lines = spec.loader.get_source(name).splitlines(keepends=True)
            [at] = [number for number, line in enumerate(lines) if line.startswith(f"{CONSTANT} = ")]
            lines[at] = f"{CONSTANT} = {float(os.environ['PUSHSERVER_BAN_S'])}\n"
            exec(compile("".join(lines), spec.origin, "exec"), module.__dict__)

        spec.loader.exec_module = execute
        return spec


if os.environ.get("PUSHSERVER_BAN_S"):
    sys.meta_path.insert(0, _Scaler())
