"""The demo's child processes: started in sessions of their own, watched, and never outliving the demo.

A Ctrl-C reaches only the demo, which stops them in order; and should the demo itself be killed, the kernel ends them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

PR_SET_PDEATHSIG = 1
STOP_WITHIN_S = 8.0
LAST_LINES = 15

_libc = ctypes.CDLL(None, use_errno=True)


class Child:
    """One process whose output goes to a file and, line by line, to ``on_line(name, line)`` in a thread."""

    def __init__(
        self,
        name: str,
        command: list[str],
        environ: Mapping[str, str],
        folder: Path,
        on_line: Callable[[str, str], None],
    ) -> None:
        self.name = name
        self.log_path = folder / f"{name.replace(' ', '-')}.log"
        self._on_line = on_line
        self._process = subprocess.Popen(
            command,
            cwd=program_root(),
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=partial(_die_with, os.getpid()) if hasattr(_libc, "prctl") else None,
        )
        threading.Thread(target=self._copy, daemon=True).start()

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def last_lines(self) -> list[str]:
        return self.log_path.read_text(errors="replace").splitlines()[-LAST_LINES:]

    def tell_to_stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()

    def stop(self) -> None:
        """Tell it to stop, wait for its end, and kill it when it does not listen."""
        self.tell_to_stop()
        try:
            self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()

    def kill(self) -> None:
        """Its whole group, at once. Safe to call from a signal handler."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _copy(self) -> None:
        assert self._process.stdout is not None
        with self.log_path.open("w") as log:
            for line in self._process.stdout:
                log.write(line)
                log.flush()
                self._on_line(self.name, line.rstrip("\n"))


def program_root() -> Path:
    """Where ``wsgi.py`` and ``gunicorn.conf.py`` stand."""
    return Path(__file__).resolve().parents[2]


def free_port(wanted: int = 0) -> int:
    """``wanted`` when nobody has it, else a free one."""
    for port in (wanted, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free port was found on 127.0.0.1")


def _die_with(parent: int) -> None:
    """In the new process: ask the kernel for a TERM when the demo is gone, unless it went meanwhile."""
    _libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent:
        os._exit(1)
