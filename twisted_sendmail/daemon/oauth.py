"""The keys ``oauth-…`` of a smarthost: a source of tokens, checked at the start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from twisted_sendmail.daemon.config_types import InvalidValue, at_key
from twisted_sendmail.daemon.secrets import SecretSource, secret_source
from twisted_sendmail.oauth import OAuthSettings
from twisted_sendmail.sasl import Secret

if TYPE_CHECKING:
    from twisted_sendmail.daemon.config_schema import SmarthostTable
    from twisted_sendmail.sasl import TokenSource

# Settings of the same names, without the prefix.
_SETTINGS = [each.name for each in attrs.fields(OAuthSettings) if each.name != "client_secret"]


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
        values = {name: getattr(table, f"oauth_{name}") for name in _SETTINGS}
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
