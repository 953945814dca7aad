"""Installs a requirements file with pip and prints one plain line per package, so that nobody waits in silence.

Usage: python scripts/install_pins.py REQUIREMENTS. Uses the standard library only: it runs before anything is there.
"""

from __future__ import annotations

import re
import subprocess
import sys


def main(requirements: str) -> int:
    """pip's exit code; when pip fails its whole output is shown."""
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
    output: list[str] = []
    collected: set[str] = set()
    with subprocess.Popen(  # noqa: S603 - the command is ours, the file an argument of the Makefile
        [*command, "-r", requirements], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            output.append(line)
            package = re.match(r"(?:Collecting|Processing) (?:\S*/)?(\S+)", line)
            if package and package[1] not in collected:
                collected.add(package[1])
                show(f"  {len(collected):3d}  {package[1]}")
            elif line.startswith("Installing collected packages"):
                show("       unpacking …")
    if pip.returncode:
        sys.stdout.writelines(output)
    else:
        show(f"       {requirements} is installed")
    return pip.returncode


def show(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
