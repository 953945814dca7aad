"""Runs a command in a process group of its own that holds the terminal, and exits with its exit code.

Usage: python scripts/in_foreground.py COMMAND [ARGUMENT …]

make dies of a Ctrl-C that reaches it, whatever the command makes of it. With the command alone in the terminal's
foreground group, Ctrl-C reaches the command exactly once and make only sees how it ended. A signal that is sent to
this process (by a script, or by make passing on a SIGTERM) is handed on, also once.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

HANDED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(command: list[str]) -> int:
    """The command's exit code, or 128 + the signal it died of."""
    terminal = controlling_terminal()
    child = os.fork()
    if child == 0:
        become_leader(terminal, os.getpid())
        os.execvp(command[0], command)  # noqa: S606 - the command is what the caller asked for

    def hand_on(number: int, frame: FrameType | None) -> None:
        os.kill(child, number)

    for number in HANDED_ON:
        signal.signal(number, hand_on)
    become_leader(terminal, child)
    while True:
        _, status = os.waitpid(child, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            take_terminal(terminal, os.getpgrp())
            return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        # Ctrl-Z: stop as a whole; after `fg` go on as a whole.
        take_terminal(terminal, os.getpgrp())
        os.killpg(os.getpgrp(), signal.SIGSTOP)
        take_terminal(terminal, child)
        os.killpg(child, signal.SIGCONT)


def controlling_terminal() -> int | None:
    """A descriptor of the terminal if this process is in its foreground group, else None."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR)
    except OSError:
        return None
    return terminal if os.tcgetpgrp(terminal) == os.getpgrp() else None


def become_leader(terminal: int | None, process: int) -> None:
    """Parent and child both call this: whoever comes first, the group stands before the command runs."""
    try:
        os.setpgid(process, process)
    except OSError:
        return  # the child has already executed its command, so it has done this itself
    take_terminal(terminal, process)


def take_terminal(terminal: int | None, group: int) -> None:
    if terminal is None:
        return
    previous = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        os.tcsetpgrp(terminal, group)
    finally:
        signal.signal(signal.SIGTTOU, previous)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
