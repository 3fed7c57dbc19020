"""The spool directory of the relay of this machine: its settings, and a message put into it."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from twisted_sendmail.drop import (
    DEFAULT_SPOOL,
    SETTINGS,
    DropEnvelope,
    DropFile,
    DropFileError,
    DropRecipient,
    read_settings,
    wake_relay,
)
from twisted_sendmail.exit_status import CommandError, ExitStatus
from twisted_sendmail.smtp import MessageTooLarge, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted_sendmail.accounts import Account
    from twisted_sendmail.drop import DropSettings
    from twisted_sendmail.smtp import Envelope

#: The environment variable that names the spool directory.
SPOOL_VARIABLE = "TWISTED_SENDMAIL_SPOOL"

_NO_ACCESS = frozenset({errno.EACCES, errno.EPERM})


def find_settings(file: str | None = None, directory: str | None = None) -> DropSettings:
    """Return the settings that the relay wrote for local programs.

    :param file: their file (``-C``).
    :param directory: the spool directory (``-O QueueDirectory=``); by default that of
        :data:`SPOOL_VARIABLE`, or that of the packaged relay.
    :raises CommandError: they cannot be read: 78 for a named file, else 75, because the relay may not
        have been started yet.
    """
    spool = directory or os.environ.get(SPOOL_VARIABLE) or DEFAULT_SPOOL
    path = file or f"{spool}/{SETTINGS}"
    shown = printable(path, 300)
    status = ExitStatus.CONFIG if file else ExitStatus.TEMPFAIL
    try:
        # The directory may be mounted elsewhere than on the relay's side.
        return read_settings(path)._replace(spool=os.path.dirname(path) or ".")  # noqa: PTH120 - pathlib costs 1 MB
    except OSError as e:
        remedy = (
            f"the relay writes it when it starts: start the relay, or name its spool directory by "
            f"-O QueueDirectory=DIR or {SPOOL_VARIABLE}; without a relay, write an account into "
            "~/.config/twisted-sendmail/accounts.toml"
        )
        if e.errno in _NO_ACCESS:
            remedy = (
                "the spool directory is closed to this user: run as root, or set spool in the "
                "configuration of the relay to a directory that is open to all users"
            )
        raise CommandError(
            f"{shown}: the file cannot be read: {e.strerror}; {remedy}", status
        ) from None
    except ValueError as e:
        raise CommandError(
            f"{shown} is not a file of the relay: {printable(str(e), 100)}; restart the relay",
            status,
        ) from None


def destination(file: str | None = None, directory: str | None = None) -> DropSettings | Account:
    """Return the relay's settings, or the default account where no relay is installed.

    A relay is installed if its spool directory is named, or exists at the usual path. While such a
    relay is down, its settings, or the error about them, are the result: mail waits for the relay.

    :param file: see :func:`find_settings`; likewise *directory*.
    :raises CommandError: see :func:`find_settings`.
    :raises InvalidServer: the file of accounts cannot be used.
    """
    try:
        return find_settings(file, directory)
    except CommandError:
        if file or directory or os.environ.get(SPOOL_VARIABLE) or _exists(DEFAULT_SPOOL):
            raise
        from twisted_sendmail.accounts import find_account

        account = find_account()
        if account is None:
            raise
        return account


def _exists(path: str) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass  # it may exist
    return True


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
    """Put a message into the spool directory, durably, and wake the relay; the file's name.

    Nothing is left behind if it fails.

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
    """Complete *file*, durably, and wake the relay; nothing is left of a file that fails.

    :raises OSError: the file cannot be written.
    """
    try:
        file.commit()
    finally:
        file.abort()
    wake_relay(settings)


def _cannot_write(settings: DropSettings, error: OSError) -> str:
    spool = printable(settings.spool, 300)
    if error.errno in _NO_ACCESS:
        remedy = "the directory is closed to this user or this service: run as root, or open it"
    elif error.errno == errno.EROFS:
        remedy = f"a systemd service with a read-only file system needs ReadWritePaths={spool}"
    elif error.errno == errno.ENOENT:
        remedy = "start the relay"
    else:
        remedy = "try again later"
    return f"the message was not taken: {spool}/drop cannot be written: {error.strerror}; {remedy}"
