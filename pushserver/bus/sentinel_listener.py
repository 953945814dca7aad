"""The ears behind Redis Sentinels: they follow the master."""

from __future__ import annotations

import logging

import gevent

from pushserver.bus.connection import REDIS_FAILURES
from pushserver.bus.listener import Listener

logger = logging.getLogger(__name__)

#: How often the Sentinels are asked who the master is.
FOLLOW_S = 2.0


class SentinelListener(Listener):
    """Connects to the master, as any listener there, and leaves one that is a replica by now.

    A replica goes on serving subscribers, and would be noticed only by the canary's silence. Asking also makes the
    commands' pool drop its connections to the old master.
    """

    def start(self) -> None:
        super().start()
        self._greenlets.append(gevent.spawn(self._follow))

    def _follow(self) -> None:
        while True:
            gevent.sleep(FOLLOW_S)
            try:
                master = self._publisher.connection_pool.get_master_address()
            except REDIS_FAILURES as error:
                logger.debug("no Sentinel names the master (%s)", type(error).__name__)
                continue
            if self._connected and master != (self._connection.host, self._connection.port):
                logger.info("the master is another server now; the bus listener follows")
                self._connection.disconnect()
