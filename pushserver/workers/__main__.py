"""The push worker's door: ``python -m pushserver.workers``. Everything it does is in ``pushserver.workers.run``."""

from gevent import monkey

monkey.patch_all()  # before anything else is imported

import sys

from pushserver.workers import run

sys.exit(run.main())
