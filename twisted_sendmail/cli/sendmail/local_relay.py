"""The relay of this machine, for a program that is not the relay: its queue, its socket, its rules.

They come from the part of the relay's configuration that every user may read: no file with a
secret is opened, and no command is run, because the caller may name the configuration file.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from twisted_sendmail.daemon.config_types import (
    ConfigSource,
    default_host_name,
    read_toml,
)
from twisted_sendmail.smtp import InvalidInput, MessageTooLarge, domain_name, printable

if TYPE_CHECKING:
    from twisted_sendmail.daemon.config_schema import LimitsTable, RootTable
    from twisted_sendmail.queue import CleanupPolicy

#: The environment variable that names the configuration.
CONFIG_VARIABLE = "TWISTED_SENDMAIL_CONFIG"
#: The configuration if neither an option nor the variable names one.
DEFAULT_CONFIG = "/etc/twisted_sendmail/relay.toml"


@attrs.frozen
class LocalRelay:
    """The relay of this machine, whether it runs or not."""

    #: The directory of the queue.
    queue: Path
    #: The socket on which the relay accepts mail of local programs.
    socket: Path
    #: The configured host name; None: that of the machine.
    configured_name: str | None = None
    #: The configuration as TOML gives it; empty without a configuration.
    tree: dict[str, Any] = attrs.field(factory=dict, repr=False)
    source: ConfigSource = attrs.field(factory=lambda: ConfigSource("the defaults"), repr=False)
    #: Relative paths of the configuration begin here.
    folder: Path = attrs.field(factory=Path, repr=False)

    @property
    def has_socket(self) -> bool:
        """The socket exists, so a relay probably runs."""
        try:
            return stat.S_ISSOCK(self.socket.stat().st_mode)
        except OSError:
            return False

    @property
    def name(self) -> str:
        """The relay's host name; asks the name service only if the machine has no full name."""
        given = self.configured_name
        try:
            return default_host_name() if given is None else domain_name(given)
        except InvalidInput:
            return "localhost"

    @property
    def sender_domain(self) -> str:
        """The domain of a sender that has none."""
        given = self._rewrite().get("append-domain")
        try:
            return domain_name(given) if isinstance(given, str) else self.name
        except InvalidInput:
            return self.name

    @property
    def recipient_domain(self) -> str:
        """The domain of a recipient that has none.

        With ``rewrite.local-mail-to`` it is the relay's name, so that the relay finds out that the
        recipient is local.
        """
        return self.name if self._rewrite().get("local-mail-to") else self.sender_domain

    def _rewrite(self) -> dict[str, Any]:
        rewrite = self.tree.get("rewrite")
        return rewrite if isinstance(rewrite, dict) else {}

    def _tables(self) -> RootTable:
        from twisted_sendmail.daemon.intake import read_intake

        return read_intake(self.tree or {"queue": "."}, self.folder, self.source)

    def limits(self) -> LimitsTable:
        """The relay's limits for incoming mail; the defaults without a configuration.

        :raises ConfigurationError: a key cannot be used.
        """
        return self._tables().limits

    def check_size(self, octets: int) -> None:
        """Refuse a message that the relay would refuse; without a configuration, none.

        :raises MessageTooLarge: as the client raises it.
        :raises ConfigurationError: a key cannot be used.
        """
        limit = self.limits().message_size if self.tree else octets
        if octets > limit:
            raise MessageTooLarge(
                "message too large", detail=f"it has {octets} octets, the relay takes {limit}"
            )

    def policy(self) -> CleanupPolicy:
        """The relay's rules for incoming mail.

        :raises ConfigurationError: a key cannot be used.
        """
        from twisted_sendmail.daemon.intake import cleanup_policy

        tables = self._tables()
        with self.source.naming_errors():
            return cleanup_policy(tables, self.name)


def find_relay(
    config: str | None = None,
    queue: str | None = None,
    *,
    options: tuple[str, str] = ("-C", "-O QueueDirectory=DIR"),
) -> LocalRelay:
    """Return the local relay.

    :param config: its configuration; None: that of :data:`CONFIG_VARIABLE`, or :data:`DEFAULT_CONFIG`.
    :param queue: its queue; then a configuration is read only if it is named.
    :param options: the options for both, for errors.
    :raises ConfigurationError: the configuration cannot be read or used.
    """
    given = config or os.environ.get(CONFIG_VARIABLE)
    if queue is not None and not given:
        directory = Path(queue).expanduser().absolute()
        return LocalRelay(directory, directory / "submission")
    path = Path(given or DEFAULT_CONFIG).expanduser()
    source = ConfigSource(printable(str(path), 300))
    if given:
        tree = read_toml(path, source)
    else:
        remedy = f"name it by {options[0]} or {CONFIG_VARIABLE}, or give the queue by {options[1]}"
        tree = read_toml(path, source, remedy=remedy)
    folder = path.absolute().parent
    name, written, submission = map(tree.get, ("name", "queue", "submission-socket"))
    if not (_is_text(written) and all(x is None or _is_text(x) for x in (name, submission))):
        # The full check has the error for each key.
        from twisted_sendmail.daemon.intake import read_intake

        read_intake(tree, folder, source)
        raise source.error("", "it cannot be used", "check it with twistd sendmail --check")
    directory = Path(queue).absolute() if queue else folder / Path(str(written)).expanduser()
    socket = folder / Path(submission).expanduser() if submission else directory / "submission"
    return LocalRelay(directory, socket, name, tree, source, folder)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value) and value.isprintable()
