"""Settings of the relay for the ``sendmail`` command: one small file in the spool directory.

The relay writes the file when it starts and when it reads its configuration again.  The command
reads neither the configuration nor the queue, which ordinary users may not.
"""

from __future__ import annotations

import json
import os
from typing import NamedTuple

#: The spool directory of the packaged relay.
DEFAULT_SPOOL = "/var/spool/twisted_sendmail"
#: In a spool directory: the settings, the directory for messages, the FIFO that notifies the relay, and
#: the socket on which the relay answers ``mailq``.
SETTINGS, DROP, WAKEUP_FIFO, MAILQ_SOCKET = "sendmail.json", "drop", "sendmail.fifo", "mailq"

_FORMAT = 1
#: Octets of the file.
_MAX_SIZE = 64 * 1024


class DropSettings(NamedTuple):
    """The relay's settings for mail of local programs."""

    #: The spool directory; an absolute path.
    spool: str
    #: The directory of the queue, an absolute path; or the URL of a database, without a password.
    queue: str
    #: The relay's host name.
    name: str
    #: The domain of a sender that has none.
    sender_domain: str
    #: The domain of a recipient that has none.
    recipient_domain: str
    #: Octets of a message.
    message_size: int
    #: Octets of its header.
    header_size: int
    #: Its recipients.
    recipients: int
    #: Its Received fields.
    hops: int

    @property
    def relay_directory(self) -> str:
        """A directory that belongs to the relay's user: that of the queue if there is one."""
        return self.queue if self.queue.startswith("/") else self.spool

    @property
    def private(self) -> bool:
        """The relay makes the drop directory itself, for root and its own user alone."""
        return self.spool == self.relay_directory

    @property
    def directory(self) -> str:
        """The directory for messages."""
        return f"{self.spool}/{DROP}"

    @property
    def mailq_socket(self) -> str:
        """The socket on which the relay answers ``mailq``."""
        return f"{self.spool}/{MAILQ_SOCKET}"


def read_settings(path: str) -> DropSettings:
    """Read the file at *path*.

    :raises OSError: it cannot be read.
    :raises ValueError: it is not such a file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        octets = os.read(descriptor, _MAX_SIZE)
    finally:
        os.close(descriptor)
    found = json.loads(octets)
    if not isinstance(found, dict) or found.pop("format", None) != _FORMAT:
        msg = f"format {_FORMAT} was expected"
        raise ValueError(msg)
    try:
        settings = DropSettings(**found)
    except TypeError as e:
        raise ValueError(str(e)) from None
    if any(type(value) is not _TYPES[name] for name, value in settings._asdict().items()):
        raise ValueError("a value has the wrong type")
    return settings


_NUMBERS = {"message_size", "header_size", "recipients", "hops"}
_TYPES = {name: int if name in _NUMBERS else str for name in DropSettings._fields}


def write_settings(settings: DropSettings) -> None:
    """Write the file into the spool directory: a reader finds the old one or the new one.

    :raises OSError: it cannot be written.
    """
    path = f"{settings.spool}/{SETTINGS}"
    temporary = f"{path}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(temporary, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(json.dumps({"format": _FORMAT, **settings._asdict()}).encode() + b"\n")
            file.flush()
            os.fchmod(descriptor, 0o644)
            os.fsync(descriptor)
        os.rename(temporary, path)  # noqa: PTH104 - pathlib costs 1 MB
    except BaseException:
        os.unlink(temporary)  # noqa: PTH108 - the same
        raise


def wake_relay(settings: DropSettings) -> None:
    """Notify the relay of a new message; it finds the message later if that fails."""
    try:
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(f"{settings.spool}/{WAKEUP_FIFO}", flags)
    except OSError:
        return  # no relay runs, or it has no FIFO
    try:
        os.write(descriptor, b"\n")
    except OSError:
        pass  # the FIFO is full: the relay was notified already
    finally:
        os.close(descriptor)
