"""Users of this machine: who is at the other end of a Unix socket, and which uids are known.

In a user namespace that does not map every uid, the kernel shows all others as one *overflow uid*,
usually 65534. That uid then identifies no user: it is reported as unknown (None).

unix(7) (SO_PEERCRED), user_namespaces(7).
"""

from __future__ import annotations

import socket
import struct
import sys
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

#: This system has SO_PEERCRED as Linux has it.
PEERS_ARE_KNOWN = sys.platform == "linux"
#: Uids, or gids, of a map that leaves none out.
_ALL_IDS = (1 << 32) - 1
#: SO_PEERGROUPS of Linux, for which Python has no name.
_SO_PEERGROUPS = 59
# Octets that getsockopt() of Python returns at most: 256 groups.
_MAX_OPTION = 1024


class LocalPeer(NamedTuple):
    """The user at the other end of a Unix socket, at the time of connect(2)."""

    #: None: not known.
    uid: int | None
    #: All groups of the process; of a process with more than 256, only the primary group.
    gids: frozenset[int] = frozenset()


def peer_of(connection: object) -> LocalPeer | None:
    """Return the user at the other end of *connection*; None: it is not a Unix socket.

    :param connection: a socket, such as the ``getHandle()`` of a transport.
    """
    if not isinstance(connection, socket.socket) or connection.family != socket.AF_UNIX:
        return None
    # Other systems that have the option have another struct.
    if not PEERS_ARE_KNOWN:
        return LocalPeer(None)
    option = socket.SO_PEERCRED
    try:
        credentials = connection.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i"))
        _, uid, gid = struct.unpack("3I", credentials)
    except (OSError, struct.error):
        return LocalPeer(None)
    gids = {gid, *_other_groups(connection)}
    return LocalPeer(known_uid(uid), frozenset(each for each in gids if _is_known("gid", each)))


def _other_groups(connection: socket.socket) -> tuple[int, ...]:
    try:
        octets = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MAX_OPTION)
        return struct.unpack(f"{len(octets) // 4}I", octets)
    except (OSError, struct.error):
        return ()


def known_uid(uid: int) -> int | None:
    """Return *uid*; None if it is the uid of all users that this user namespace does not map."""
    return uid if _is_known("uid", uid) else None


def uid_text(uid: int | None) -> str:
    """Return ``uid 1000`` or ``uid unknown``."""
    return f"uid {'unknown' if uid is None else uid}"


@lru_cache
def all_ids_are_known(kind: str = "uid") -> bool:
    """Return False in a user namespace that leaves out some ids of the machine.

    :param kind: ``uid`` or ``gid``.
    """
    try:
        lines = Path(f"/proc/self/{kind}_map").read_text("ascii").splitlines()
        return sum(int(line.split()[2]) for line in lines) >= _ALL_IDS
    except (OSError, ValueError, IndexError):
        # A kernel without user namespaces.
        return True


@lru_cache
def _overflow_id(kind: str) -> int:
    try:
        return int(Path(f"/proc/sys/kernel/overflow{kind}").read_text("ascii"))
    except (OSError, ValueError):
        return 65534


def _is_known(kind: str, number: int) -> bool:
    return number != _ALL_IDS and (all_ids_are_known(kind) or number != _overflow_id(kind))
