"""``python -m pushserver.exchange_sim --port P``: serve the simulated exchange until SIGTERM or SIGINT."""

from __future__ import annotations

import sys

from pushserver.exchange_sim.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
