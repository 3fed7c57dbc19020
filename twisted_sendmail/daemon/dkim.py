"""The keys of ``[[dkim]]``: checked at the start, and read again for each message that they sign."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

from twisted_sendmail.daemon.config_schema import numbered
from twisted_sendmail.daemon.config_types import InvalidValue, at_key
from twisted_sendmail.daemon.secrets import secret_source
from twisted_sendmail.message import DKIMKey, SigningUnavailable
from twisted_sendmail.queue import DKIMDomain
from twisted_sendmail.smtp import InvalidInput

if TYPE_CHECKING:
    from twisted_sendmail.daemon.config_schema import DKIMTable, RootTable
    from twisted_sendmail.daemon.secrets import SecretSource

_log = Logger(namespace="twisted_sendmail.daemon")


def dkim_domains(tables: RootTable) -> tuple[DKIMDomain, ...]:
    """Return the domains whose mail is signed.

    :raises InvalidValue: naming the key that cannot be used.
    """
    made: dict[str, DKIMDomain] = {}
    for number, table in enumerate(tables.dkim, 1):
        with at_key(numbered("dkim", number, len(tables.dkim))):
            domain = _domain(table, world_readable=tables.world_readable_secrets)
            if domain.domain in made:
                why = "there is another [[dkim]] for this domain"
                raise InvalidValue(why, "write both keys as [[dkim.key]] below one", "domain")
            made[domain.domain] = domain
    return tuple(made.values())


def _domain(table: DKIMTable, *, world_readable: bool) -> DKIMDomain:
    if not table.users and not table.accounts:
        why = "nobody may send mail of the domain"
        raise InvalidValue(why, 'name users or accounts, or write users = ["*"]', "users")
    if not table.key:
        remedy = "write [[dkim.key]] with its selector below it"
        raise InvalidValue("missing", remedy, "key")
    readers = []
    for number, key in enumerate(table.key, 1):
        with at_key(numbered("key", number, len(table.key))):
            source = secret_source(key, "key", world_readable=world_readable)
            if source is None:
                raise InvalidValue("missing", "give key-file or key-credential", "key-file")
            reader = KeyReader(
                source, table.domain, key.selector, allow_unsigned=table.allow_unsigned
            )
            with at_key(f"key-{source.kind}"):
                _ = reader.read()
            readers.append(reader)
    return DKIMDomain(
        table.domain,
        readers,
        None if "*" in table.users else [int(user) for user in table.users],
        None if "*" in table.accounts else table.accounts,
    )


class KeyReader:
    """Returns a key as it is in its file now; called in a thread.

    :param allow_unsigned: return None instead of raising.
    """

    def __init__(
        self, source: SecretSource, domain: str, selector: str, *, allow_unsigned: bool
    ) -> None:
        self._source = source
        self._domain = domain.lower()
        self._selector = selector
        self._allow_unsigned = allow_unsigned
        self._last: tuple[str, DKIMKey] | None = None
        self._why = ""

    def read(self) -> DKIMKey:
        """Read the key.

        :raises InvalidValue: it cannot be read, or cannot be used.
        """
        text, last = self._source.read(), self._last
        if last is not None and last[0] == text:
            return last[1]
        try:
            key = DKIMKey(self._domain, self._selector, text)
        except InvalidInput as e:
            raise InvalidValue(e.detail or e.what, e.remedy) from None
        self._last = text, key
        return key

    def __call__(self) -> DKIMKey | None:
        """Return the key; None: mail goes unsigned.

        :raises SigningUnavailable: it cannot be read.
        """
        try:
            key = self.read()
        except InvalidValue as e:
            if not self._allow_unsigned:
                raise SigningUnavailable(
                    f"mail of {self._domain} cannot be signed", detail=e.why, remedy=e.remedy
                ) from None
            if e.why != self._why:
                self._why = e.why
                _log.error(
                    "mail of {domain} goes out unsigned: {why}; {remedy}",
                    domain=self._domain,
                    why=e.why,
                    remedy=e.remedy,
                )
            return None
        self._why = ""
        return key
