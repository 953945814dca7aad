"""Commands to a Redis Cluster, each to the node that owns its slot.

redis-py has a client for this. It connects when it is made, needs the right to run COMMAND, and when a node hangs
it sends every command of a pipeline to it again, one by one, each with its own timeouts: a phone would wait for
minutes. So its clients for single nodes are used, and the way from slot to node is found here.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from redis.commands import CoreCommands
from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from pushserver.bus.topology import Node, Topology, slot_of
from pushserver.clock import Clock

#: How often one command is sent on to another node, or again to one that asks for patience.
MAX_ATTEMPTS = 4
PATIENCE_S = 0.05

#: Commands of ours that belong to no slot: any node can run them.
KEYLESS = frozenset({"PING", "INFO", "TIME", "PUBLISH"})

_UNREACHABLE = (RedisConnectionError, RedisTimeoutError, OSError)
_TRY_ELSEWHERE = (MovedError, AskError, TryAgainError, ClusterDownError)


class _Commands(CoreCommands):
    """The commands' methods (``hset``, ``get``, …), each of which calls ``execute_command``."""

    #: The library's mixin asks for one; only its own pub/sub uses it.
    _event_dispatcher: Any = None


class ClusterClient(_Commands):
    """The part of ``redis.Redis`` that this program uses; raises what that raises."""

    def __init__(self, topology: Topology, clock: Clock) -> None:
        self.topology = topology
        self._clock = clock

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run one command where it belongs, following the slot when it has moved."""
        if args[0].upper() in KEYLESS:
            return self._on_any_node(args, options)
        slot = _slot(args)
        for attempt in range(1, MAX_ATTEMPTS + 1):
            node = self._owner(slot)
            try:
                return self.topology.client(node).execute_command(*args, **options)
            except _UNREACHABLE:
                if not self._replaced(slot, node) or attempt == MAX_ATTEMPTS:
                    raise
            except MovedError as moved:  # to the library a kind of AskError
                if attempt == MAX_ATTEMPTS:
                    raise
                self.topology.moved(slot, Node(moved.host or node.host, int(moved.port)))
            except AskError as ask:
                return self._asking(Node(ask.host or node.host, int(ask.port)), args, options)
            except (TryAgainError, ClusterDownError):
                if attempt == MAX_ATTEMPTS:
                    raise
                self._clock.sleep(PATIENCE_S)
                self.topology.refresh(avoid=node)
        raise AssertionError("the last attempt returns or raises")

    def pipeline(self, transaction: bool = False) -> ClusterPipeline:
        """Commands for any slots, sent together; never atomic, whatever ``transaction`` says."""
        return ClusterPipeline(self)

    def execute_group(self, node: Node, group: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
        """The answers of one node to several commands; errors of single commands stand in their places."""
        pipeline = self.topology.client(node).pipeline(transaction=False)
        for args, options in group:
            pipeline.execute_command(*args, **options)
        answers: list[Any] = pipeline.execute(raise_on_error=False)
        return answers

    def close(self) -> None:
        self.topology.close()

    def _owner(self, slot: int) -> Node:
        node = self.topology.owner(slot)
        if node is None:
            self.topology.refresh()
            node = self.topology.owner(slot)
        if node is None:
            raise RedisConnectionError("no node owns the slot")
        return node

    def _replaced(self, slot: int, lost: Node) -> bool:
        """After a node was lost: whether another one owns the slot by now."""
        self.topology.refresh(avoid=lost)
        return self.topology.owner(slot) not in (lost, None)

    def _asking(self, node: Node, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """A slot on its way between two nodes: the new one answers only who says that the old one sent it."""
        _, answer = self.execute_group(node, [(("ASKING",), {}), (args, options)])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _on_any_node(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if not self.topology.known:
            self.topology.refresh()
        failure: Exception | None = None
        for node in sorted(self.topology.owners()):
            try:
                return self.topology.client(node).execute_command(*args, **options)
            except _UNREACHABLE as error:
                failure = error
        raise failure or RedisConnectionError("no node is known")


class ClusterPipeline(_Commands):
    """Collects commands; ``execute`` sends those of each node in one go."""

    def __init__(self, client: ClusterClient) -> None:
        self._client = client
        self._commands: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def execute_command(self, *args: Any, **options: Any) -> ClusterPipeline:
        self._commands.append((args, options))
        return self

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """The answers in the order asked.

        Raises:
            redis.RedisError: a node is away, or, unless it was said not to, a command failed.
        """
        commands, self._commands = self._commands, []
        answers: list[Any] = [None] * len(commands)
        groups: dict[Node, list[int]] = defaultdict(list)
        for number, (args, _) in enumerate(commands):
            groups[self._client._owner(_slot(args))].append(number)
        for node, numbers in groups.items():
            answered = self._answers(node, [commands[number] for number in numbers])
            for number, answer in zip(numbers, answered, strict=True):
                answers[number] = answer
        if raise_on_error:
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
        return answers

    def _answers(self, node: Node, group: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
        try:
            answers = self._client.execute_group(node, group)
        except _UNREACHABLE:
            if not self._client._replaced(_slot(group[0][0]), node):
                raise
            # Rare enough to go one by one, each to whoever owns its slot now.
            return [self._alone(args, options) for args, options in group]
        return [
            self._alone(*command) if isinstance(answer, _TRY_ELSEWHERE) else answer
            for command, answer in zip(group, answers, strict=True)
        ]

    def _alone(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """The answer, or the error in its place; only a node that is away ends the whole pipeline."""
        try:
            return self._client.execute_command(*args, **options)
        except _TRY_ELSEWHERE as error:
            return error


def _slot(args: tuple[Any, ...]) -> int:
    """By the first key: all keys of one command of ours lie in one slot."""
    return slot_of(args[3] if args[0] in ("EVALSHA", "EVAL") else args[1])
