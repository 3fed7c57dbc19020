"""The choice of the sendmail command: the relay of this machine, or an account where there is none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from twisted_sendmail.drop import DEFAULT_SPOOL, SETTINGS, read_settings
from twisted_sendmail.exit_status import CommandError, ExitStatus
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from twisted_sendmail.accounts import Account
    from twisted_sendmail.drop import DropSettings

#: The environment variable that names the spool directory.
SPOOL_VARIABLE = "TWISTED_SENDMAIL_SPOOL"


def destination(file: str | None = None, directory: str | None = None) -> DropSettings | Account:
    """Return the relay's settings, or the default account where no relay is installed.

    A relay is installed if its spool directory is named, or exists at the usual path. While such a
    relay is down, its settings, or the error about them, are the result: mail waits for the relay.

    :param file: the file of the relay's settings (``-C``).
    :param directory: the spool directory (``-O QueueDirectory=``); by default that of
        :data:`SPOOL_VARIABLE`, or that of the packaged relay.
    :raises CommandError: the settings cannot be read: 78 for a named file, else 75, because the relay
        may not have been started yet.
    :raises InvalidServer: the file of accounts cannot be used.
    """
    try:
        return _relay_settings(file, directory)
    except CommandError:
        if file or directory or os.environ.get(SPOOL_VARIABLE) or _exists(DEFAULT_SPOOL):
            raise
        from twisted_sendmail.accounts import find_account

        account = find_account()
        if account is None:
            raise
        return account


def _relay_settings(file: str | None, directory: str | None) -> DropSettings:
    """Return the settings that the relay wrote for local programs; see ``destination``."""
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
        if isinstance(e, PermissionError):
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


def _exists(path: str) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass  # it may exist
    return True
