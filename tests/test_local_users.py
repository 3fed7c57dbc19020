"""The user at the other end of a Unix socket."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from contextlib import closing

import pytest

from twisted_sendmail.local_users import all_ids_are_known, known_uid, peer_of, uid_text

_SHOW_PEER = """
import socket, sys
from twisted_sendmail.local_users import all_ids_are_known, known_uid, peer_of
with socket.socket(fileno=int(sys.argv[1])) as connection:
    print(peer_of(connection).uid, *peer_of(connection).gids, known_uid(65534), all_ids_are_known())
"""


def test_the_peer_of_a_unix_socket_is_a_user_with_groups() -> None:
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        peer = peer_of(ours)
    assert peer is not None
    assert peer.uid == os.geteuid()
    assert peer.gids == {os.getegid(), *os.getgroups()}


def test_a_network_socket_has_no_user() -> None:
    with closing(socket.socket()) as connection:
        assert peer_of(connection) is None


def test_users_that_a_user_namespace_does_not_map_are_unknown() -> None:
    namespace = [shutil.which("unshare") or "unshare", "--user"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("user namespaces are not allowed here")
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        shown = subprocess.run(
            [*namespace, sys.executable, "-c", _SHOW_PEER, str(ours.fileno())],
            pass_fds=[ours.fileno()],
            capture_output=True,
            text=True,
            check=True,
        )
    assert shown.stdout == "None None False\n"


def test_all_users_are_known_outside_of_user_namespaces() -> None:
    if not all_ids_are_known():
        pytest.skip("this is a user namespace")
    assert known_uid(65534) == 65534
    assert (uid_text(65534), uid_text(None)) == ("uid 65534", "uid unknown")
