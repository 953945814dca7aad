"""The test's side of the recorders: starts them, orders, and reads what they wrote so far."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.system.blackbox.logs import Entry, read_entries
from tests.system.harness import ROOT

JS = Path(__file__).resolve().parents[2] / "js"


class Recording:
    """One recorder process; ``entries`` grows by what ``read`` finds."""

    def __init__(self, command: list[str], log: Path, cwd: Path) -> None:
        self._log = log
        log.touch()
        self._file = log.open()
        self._rest = ""
        self.entries: list[Entry] = []
        self._process = subprocess.Popen(command, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def order(self, **order: Any) -> None:
        """See recorder.py; returns when it was taken."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline(), "the recorder has died"

    def read(self) -> list[Entry]:
        """Everything written so far."""
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        self.entries += read_entries(lines)
        return self.entries

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._file.close()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


def light_clients(address: str, log: Path, seed: int) -> Recording:
    """Clients of our own, in one Python process; ``address`` as HOST:PORT."""
    command = [sys.executable, "-m", "tests.system.blackbox.recorder", "--address", address]
    return Recording([*command, "--log", str(log), "--seed", str(seed)], log, ROOT)


def node_clients(address: str, log: Path) -> Recording:
    """The official client, several of them in one node process. Takes the order ``connect`` only."""
    return Recording(["node", "recorder.mjs", f"http://{address}", str(log)], log, JS)
