"""Where the relay of this machine is: its queue, its socket, and how mail gets in without it.

Read from the relay's own configuration, as far as it concerns who is not the relay: no
secret and no certificate is looked at, for others than the relay may not read them, and
no command is run, for the file may be named by who calls.

``tomllib`` alone for what every call needs; the whole of ``operation`` only for the rest.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted_sendmail.daemon.configuration_error import ConfigSource, ConfigurationError
from twisted_sendmail.daemon.host_name import host_name
from twisted_sendmail.smtp import InvalidInput, domain_name, printable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from twisted_sendmail.daemon.limits import Limits
    from twisted_sendmail.queue import CleanupPolicy

#: The environment variable that names the configuration.
VARIABLE = "TWISTED_SENDMAIL_CONFIG"
#: Where it is when nobody says.
CONFIGURATION = "/etc/twisted_sendmail/relay.toml"
_MAX_FILE = 1024 * 1024
# The part of the configuration that is not for the relay alone.
_ROOT = ("name", "queue", "submission-socket", "rewrite")


@dataclass(frozen=True)
class Place:
    """What is to be known of a relay by who is not it."""

    #: The directory of the queue.
    queue: Path
    #: Where it takes mail of this machine's programs.
    socket: Path
    #: Its host name as configured; None: that of the machine.
    configured_name: str | None = None
    #: The tree of the configuration, and where it is written.
    tree: dict[str, Any] = field(default_factory=dict, repr=False)
    source: ConfigSource = field(default_factory=lambda: ConfigSource("the defaults"), repr=False)
    folder: Path = field(default_factory=Path, repr=False)

    @property
    def name(self) -> str:
        """The relay's host name.

        Asks the name service only where the machine itself does not know.
        """
        given = self.configured_name
        try:
            return host_name() if given is None else domain_name(given)
        except InvalidInput:
            return "localhost"

    @property
    def sender_domain(self) -> str:
        """What is behind the @ of a sender who has none."""
        return self._appended() or self.name

    @property
    def recipient_domain(self) -> str:
        """What is behind the @ of a recipient who has none.

        Where mail for this machine goes to one address, it has to be seen to be that.
        """
        if self._rewrite().get("local-mail-to"):
            return self.name
        return self._appended() or self.name

    def _rewrite(self) -> dict[str, Any]:
        rewrite = self.tree.get("rewrite")
        return rewrite if isinstance(rewrite, dict) else {}

    def _appended(self) -> str | None:
        given = self._rewrite().get("append-domain")
        try:
            return domain_name(given) if isinstance(given, str) else None
        except InvalidInput:
            return None

    def limits(self) -> Limits:
        """What the relay lets those do who bring mail.

        :raises ConfigurationError: naming the key that cannot be used.
        """
        from twisted_sendmail.cli.relay_policy import limits_of

        return limits_of(self.tree, self.folder, self.source)

    def check_size(self, octets: int) -> None:
        """Would the relay take a message so large?  It would, where there is no telling.

        :raises MessageTooLarge: as its own client says it.
        :raises ConfigurationError: naming the key that cannot be used.
        """
        limit = self.limits().message_size if self.tree else octets
        if octets > limit:
            from twisted_sendmail.smtp import MessageTooLarge

            raise MessageTooLarge(
                "message too large", detail=f"it has {octets} octets, the relay takes {limit}"
            )

    def policy(self) -> CleanupPolicy:
        """What the relay would do to mail on its way in.

        :raises ConfigurationError: naming the key that cannot be used.
        """
        from twisted_sendmail.cli.relay_policy import policy_of

        return policy_of(self.tree, self.folder, self.source, self.name)


def place_of(config: str | None = None, queue: str | None = None) -> Place:
    """Find the relay.

    :param config: its configuration; None: the one of the environment, or the usual one.
    :param queue: its queue: the configuration need not be there then, and is read only
        where it is named.
    :raises ConfigurationError: there is no telling; one line that says what to do.
    """
    given = config or os.environ.get(VARIABLE)
    if queue is not None and not given:
        directory = Path(queue).expanduser().absolute()
        return Place(directory, directory / "submission")
    path = Path(given or CONFIGURATION).expanduser()
    source = ConfigSource(printable(str(path), 300))
    tree = _read(path, source, named=bool(given))
    folder = path.absolute().parent
    name, written, submission = (tree.get(key) for key in _ROOT[:3])
    if not (_is_text(written) and all(x is None or _is_text(x) for x in (name, submission))):
        # Whoever reads all of it has the right words for it.
        _complain(tree, folder, source)
    directory = Path(queue).absolute() if queue else folder / Path(str(written)).expanduser()
    at = folder / Path(submission).expanduser() if submission else directory / "submission"
    return Place(directory, at, name, tree, source, folder)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value) and value.isprintable()


def _read(path: Path, source: ConfigSource, *, named: bool) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE)
    except OSError as e:
        remedy = "check the name and its permissions"
        if not named:
            remedy = f"name it by --config or {VARIABLE}, or give the queue by --queue"
        why = f"it cannot be read: {e.strerror or type(e).__name__}"
        raise ConfigurationError(source.name, detail=why, remedy=remedy) from None
    try:
        return tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as e:
        why = f"it is no TOML: {printable(str(e), 200)}"
        raise ConfigurationError(source.name, detail=why, remedy="correct it") from None


def _complain(tree: dict[str, Any], folder: Path, source: ConfigSource) -> None:
    from twisted_sendmail.cli.relay_policy import ours

    ours(tree, folder, source)
    raise source.error("", "it cannot be used", "check it with twistd sendmail")
