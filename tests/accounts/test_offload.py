"""Work that computes yields to the event loop; what does not stays as it was."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from pushserver.accounts.offload import Offload
from tests.conftest import require


def own_niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.parametrize("more", [0, 5])
def test_a_thread_is_as_nice_as_told_and_the_caller_stays_as_it_was(more):
    require(sys.platform == "linux", "only Linux has a priority per thread")
    before = own_niceness()
    offload = Offload("test", threads=1, queue_size=1, limit_s=10, niceness=more and before + more)
    try:
        assert offload.run(own_niceness) == before + more
        assert own_niceness() == before
    finally:
        offload.close()
