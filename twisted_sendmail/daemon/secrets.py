"""Secrets of the relay: from a file, a systemd credential, a command, the environment, or by OAuth.

Never from the configuration itself or from argv. No error quotes a secret, and the stderr of a
command is thrown away.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from twisted_sendmail.daemon.config_types import InvalidValue, at_key
from twisted_sendmail.oauth import CommandTokens, FileTokens, OAuthSettings
from twisted_sendmail.off_reactor import off_reactor
from twisted_sendmail.sasl import CredentialsUnavailable, Secret
from twisted_sendmail.secret_file import read_file
from twisted_sendmail.secret_reader import SecretCommand, one_line, secret_text, shell_words
from twisted_sendmail.smtp import InvalidServer, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred

    from twisted_sendmail.daemon.config_schema import AdminTable, DKIMKeyTable, SmarthostTable
    from twisted_sendmail.sasl import TokenSource

_KINDS = ("file", "credential", "command", "shell", "environment")
# Settings of the same names, without the prefix ``oauth_``.
_OAUTH_SETTINGS = [
    each.name for each in attrs.fields(OAuthSettings) if each.name != "client_secret"
]


def secret_source(
    table: SmarthostTable | AdminTable | DKIMKeyTable, name: str, *, world_readable: bool
) -> SecretSource | None:
    """Return the source of the secret *name* in *table*, checked; None if no key names one.

    :param world_readable: accept a file that everybody may read.
    :raises InvalidValue: two keys name one, or the secret is not available.
    """
    values = {kind: getattr(table, f"{name}_{kind}", None) for kind in _KINDS}
    given = [kind for kind, value in values.items() if value is not None]
    if not given:
        return None
    key = name.replace("_", "-")
    with at_key(f"{key}-{given[0]}"):
        if len(given) > 1:
            raise InvalidValue(f"there is a {key}-{given[1]} too", "give one of them")
        source = SecretSource(given[0], values[given[0]], world_readable, whole=name == "key")
        source.check()
    return source


@attrs.frozen
class SecretSource:
    """One place to read a secret from.

    :param kind: ``file``, ``credential``, ``command``, ``shell`` or ``environment``.
    :param place: the path, the credential's name, the words, the line, the variable.
    :param world_readable: accept a file that everybody may read.
    :param whole: the secret has several lines, as a key in PEM.
    """

    kind: str
    place: Any = attrs.field(repr=False)
    world_readable: bool = attrs.field(default=False, repr=False)
    whole: bool = attrs.field(default=False, repr=False)

    def check(self) -> None:
        """Check that the secret is available, without running a command.

        :raises InvalidValue: it is not.
        """
        if self.kind == "command":
            program = self.place[0]
            if shutil.which(program) is None:
                why = f"there is no program {printable(program, 100)}"
                raise InvalidValue(why, "give its whole path, or install it")
        elif self.kind != "shell":
            self.read()

    def read(self) -> str:
        """Read the secret. Blocks while a command runs.

        :raises InvalidValue: it is not available.
        """
        return self._read(self._command())

    def _read(self, command: SecretCommand | None) -> str:
        try:
            content = self._content() if command is None else command.run()
            return secret_text(content) if self.whole else one_line(content)
        except InvalidServer as e:
            raise InvalidValue(e.detail, e.remedy) from None

    @property
    def _words(self) -> Sequence[str] | None:
        """The words of the command; None: no command prints the secret."""
        if self.kind == "shell":
            return shell_words(self.place)
        return self.place if self.kind == "command" else None

    def _command(self) -> SecretCommand | None:
        words = self._words
        return None if words is None else SecretCommand(words)

    def _content(self) -> bytes:
        if self.kind == "file":
            return read_file(self.place, world_readable=self.world_readable)
        if self.kind == "credential":
            # systemd protects the directory.
            return read_file(_credential_path(self.place), world_readable=True)
        if self.place not in os.environ:
            why = f"the variable {printable(self.place, 60)} is not set"
            raise InvalidValue(why, "set it where the relay is started")
        return os.environb[os.fsencode(self.place)]

    def provider(self, reactor: Any) -> Callable[[], Deferred[str]]:
        """Return a function that reads the secret again, in a thread; the secret may have changed."""

        def provide() -> Deferred[str]:
            command = self._command()

            def read() -> str:
                try:
                    return self._read(command)
                except InvalidValue as e:
                    raise CredentialsUnavailable(
                        "the password cannot be obtained",
                        detail=e.why,
                        remedy=e.remedy,
                        phase="AUTH",
                    ) from None

            return off_reactor(reactor, read, None if command is None else command.kill)

        return provide

    def tokens(self, reactor: Any) -> TokenSource | Callable[[], Deferred[str]]:
        """Return a source that reads the secret again, for each connection and after a refusal.

        The environment does not change: what it holds is read for each connection only.
        """
        words = self._words
        if words is not None:
            return CommandTokens(reactor, words)
        if self.kind == "environment":
            return self.provider(reactor)
        if self.kind == "credential":
            return FileTokens(reactor, _credential_path(self.place), world_readable=True)
        return FileTokens(reactor, self.place, world_readable=self.world_readable)


def _credential_path(name: str) -> Path:
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        why = "there are no credentials: CREDENTIALS_DIRECTORY is not set"
        raise InvalidValue(why, "write LoadCredential= in the systemd unit, or use a file")
    if "/" in name or name in {".", ".."}:
        why = "invalid name of a credential"
        raise InvalidValue(why, "write the name that LoadCredential= gives it")
    return Path(directory) / name


# -- OAuth ----------------------------------------------------------------------------


def oauth_tokens(
    table: SmarthostTable, reactor: Any, *, world_readable: bool
) -> TokenSource | None:
    """Return the source of tokens of *table*; None if no key names one.

    :param world_readable: accept a file with the client's secret that everybody may read.
    :raises InvalidValue: a key cannot be used, or one is missing.
    """
    names = [each.name for each in attrs.fields(type(table)) if each.name.startswith("oauth_")]
    given = [name for name in names if getattr(table, name) is not None]
    if not given:
        return None
    if table.oauth_client_id is None:
        remedy = "write the client, as registered at the provider"
        raise InvalidValue("missing", remedy, "oauth-client-id")
    source = secret_source(table, "oauth_client_secret", world_readable=world_readable)
    secret = None if source is None else Secret(source.read())
    key = given[0].replace("_", "-")
    with at_key(key):
        values = {name: getattr(table, f"oauth_{name}") for name in _OAUTH_SETTINGS}
        settings = OAuthSettings(client_secret=secret, **values)
    for name in ("oauth_refresh_token_command", "oauth_store_command"):
        if getattr(table, name) is not None:
            with at_key(name.replace("_", "-")):
                SecretSource("command", getattr(table, name)).check()
    with at_key(key):
        store = settings.store(reactor)
    if table.oauth_refresh_token_file is not None and store is not None:
        with at_key("oauth-refresh-token-file"):
            store.check()
    with at_key(key):
        try:
            return settings.source(reactor, store)
        except ImportError as e:
            raise InvalidValue(str(e)) from None
