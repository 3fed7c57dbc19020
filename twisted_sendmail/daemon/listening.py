"""All the doors of a relay: opened together, replaced together, closed together.

Each message gets a ``QueueReceiver``.  A Unix socket for programs of this machine is
always among them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, gatherResults

from twisted_sendmail.daemon.config import Configuration, Listener
from twisted_sendmail.daemon.door import ListenerService, make_server
from twisted_sendmail.daemon.endpoint_text import EndpointText
from twisted_sendmail.server import AuthThrottle, HashingPool, QueueReceiver

if TYPE_CHECKING:
    from twisted_sendmail.queue import Queue
    from twisted_sendmail.server import ConnectionInfo

#: What makes a door the same one; the permissions are those of the local socket.
Key = tuple[EndpointText, "int | None"]


class Listening:
    """The doors.

    :param spool: where the mail goes; it is open.
    """

    def __init__(self, reactor: Any, spool: Queue) -> None:
        self._reactor = reactor
        self._spool = spool
        self._doors: dict[Key, ListenerService] = {}
        self._leaving: set[ListenerService] = set()
        # These outlive a reload: guessing goes on where it was.
        self._throttle = AuthThrottle(reactor)
        self._pool = HashingPool(reactor)

    @property
    def connections(self) -> int:
        """Those that are open."""
        return sum(door.connections for door in {*self._doors.values(), *self._leaving})

    @property
    def addresses(self) -> list[Any]:
        """Where it listens, in the order of the configuration; the local socket comes last."""
        return [door.address for door in self._doors.values()]

    async def set(self, configuration: Configuration) -> None:
        """Listen as *configuration* says: open what is new, close what is not in it any more.

        All or nothing: when this raises, it is as it was before.

        :raises SendmailError: a file cannot be used, or an endpoint is not to be had.
        """
        policy = configuration.admission

        def receiver(connection: ConnectionInfo) -> QueueReceiver:
            return QueueReceiver(connection, self._spool, policy, self._reactor)

        servers = {
            key: (
                make_server(
                    self._reactor,
                    receiver,
                    configuration,
                    each,
                    throttle=self._throttle,
                    pool=self._pool,
                ),
                each.implicit_tls,
            )
            for key, each in _listeners(configuration).items()
        }
        opened: dict[Key, ListenerService] = {}
        try:
            for key, (server, implicit_tls) in servers.items():
                if key not in self._doors:
                    door = opened[key] = ListenerService(
                        self._reactor, server, implicit_tls=implicit_tls
                    )
                    await _open(door, key)
        except BaseException:
            for door in opened.values():
                await door.shut()
            raise
        self._throttle.base = configuration.limits.failed_login
        before, self._doors = self._doors, {**self._doors, **opened}
        self._doors = {key: self._doors[key] for key in servers}
        for key, (server, implicit_tls) in servers.items():
            if key in before:
                self._doors[key].serve(server, implicit_tls=implicit_tls)
        for key in before.keys() - servers.keys():
            self._let_go(before[key], configuration.limits.stop_grace)

    def _let_go(self, door: ListenerService, grace: float) -> None:
        self._leaving.add(door)

        def gone(result: object) -> None:
            self._leaving.discard(door)

        _ = Deferred.fromCoroutine(door.close(grace)).addBoth(gone)

    async def close(self, grace: float) -> None:
        """Listen no more; messages under way get their reply within *grace* seconds."""
        doors = {*self._doors.values(), *self._leaving}
        self._doors = {}
        for door in doors:
            await door.shut()
        _ = await gatherResults([Deferred.fromCoroutine(door.close(grace)) for door in doors])
        self._pool.stop()


async def _open(door: ListenerService, key: Key) -> None:
    endpoint, mode = key
    if mode is None or endpoint.path is None:
        await door.open(endpoint)
    else:
        await door.open_socket(Path(endpoint.path), mode)


def _listeners(configuration: Configuration) -> dict[Key, Listener]:
    listeners: dict[Key, Listener] = {
        (each.endpoint, None): each for each in configuration.listeners
    }
    # What programs of this machine submit by, without TLS and AUTH.
    path = str(configuration.submission_socket)
    endpoint = EndpointText(f"unix:{path}", "unix", "", path)
    listeners[endpoint, configuration.submission_mode] = Listener(
        endpoint,
        certificate=None,
        key=None,
        implicit_tls=False,
        accounts=None,
        trusted=("unix",),
        repair=True,
        # Programs write whole dialogues to a pipe, and read the replies afterwards or never.
        early_input=("unix",),
    )
    return listeners
