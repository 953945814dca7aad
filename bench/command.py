"""What the commands of the benchmarks share: how they read lists, tell progress and end."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from bench.processes import BenchmarkFailed, end_on_signals


def parse_numbers(text: str) -> list[int]:
    """``1,4``; raises click.BadParameter."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise click.BadParameter(f"{text!r} is not a list of numbers such as 1,4")
    return numbers


def tell(line: str) -> None:
    """Progress; the table alone goes to stdout."""
    print(line, file=sys.stderr, flush=True)


def run_command(command: click.Command) -> NoReturn:
    """Run it and exit: with its own code, 1 when the benchmark could not be made, 130 after Ctrl-C, TERM or HUP."""
    end_on_signals()
    try:
        sys.exit(command.main(standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        tell("stopped")
        sys.exit(130)
    except BenchmarkFailed as failure:
        tell(f"the benchmark could not be made: {failure}")
        sys.exit(1)
