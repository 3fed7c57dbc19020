"""A message put into the spool directory of the relay of this machine."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from twisted_sendmail.drop import (
    DropEnvelope,
    DropFile,
    DropFileError,
    DropRecipient,
    wake_relay,
)
from twisted_sendmail.exit_status import CommandError, ExitStatus
from twisted_sendmail.smtp import MessageTooLarge, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted_sendmail.drop import DropSettings
    from twisted_sendmail.smtp import Envelope


def drop_envelope(
    envelope: Envelope, *, full_name: str | None = None, binary: bool = False
) -> DropEnvelope:
    """Return *envelope* as text."""
    return DropEnvelope(
        sender=str(envelope.sender) if envelope.sender.mailbox else "",
        recipients=tuple(
            DropRecipient(str(each.path), ",".join(sorted(each.notify)), each.orcpt)
            for each in envelope.recipients
        ),
        ret=envelope.ret,
        envid=envelope.envid,
        require_tls=envelope.require_tls,
        binary=binary,
        full_name=full_name,
    )


def put(settings: DropSettings, envelope: DropEnvelope, pieces: Iterable[bytes]) -> str:
    """Put a message into the spool directory, durably, and notify the relay; return the file's name.

    If it fails, no file is left.

    :param pieces: the content.
    :raises MessageTooLarge: it is longer than the relay takes.
    :raises CommandError: the file cannot be written: 75, or the envelope is too long: 65.
    """
    limit = settings.message_size
    try:
        file = DropFile(settings.directory, envelope)
        try:
            file.create()
            for piece in pieces:
                if file.size + len(piece) > limit:
                    raise MessageTooLarge(
                        "message too large", detail=f"the relay takes {limit} octets"
                    )
                file.write(piece)
            commit(settings, file)
        finally:
            file.abort()
    except DropFileError as e:
        raise CommandError(
            f"{e}; send the message to fewer at a time", ExitStatus.DATAERR
        ) from None
    except OSError as e:
        raise CommandError(_cannot_write(settings, e), ExitStatus.TEMPFAIL) from None
    return file.name


def commit(settings: DropSettings, file: DropFile) -> None:
    """Complete *file*, durably, and notify the relay; a file that fails is removed.

    :raises OSError: the file cannot be written.
    """
    try:
        file.commit()
    finally:
        file.abort()
    wake_relay(settings)


def _cannot_write(settings: DropSettings, error: OSError) -> str:
    spool = printable(settings.spool, 300)
    if isinstance(error, PermissionError):
        remedy = "the directory is closed to this user or this service: run as root, or open it"
    elif error.errno == errno.EROFS:
        remedy = f"a systemd service with a read-only file system needs ReadWritePaths={spool}"
    elif error.errno == errno.ENOENT:
        remedy = "start the relay"
    else:
        remedy = "try again later"
    return f"the message was not taken: {spool}/drop cannot be written: {error.strerror}; {remedy}"
