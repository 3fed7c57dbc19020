"""The keys ``oauth-…`` of a smarthost: a source of tokens, checked at the start."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import attrs

from twisted_sendmail.daemon.config_types import InvalidValue, at_key
from twisted_sendmail.daemon.secrets import SecretSource, secret_source
from twisted_sendmail.oauth import token_source
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from pathlib import Path

    from twisted_sendmail.daemon.config_schema import SmarthostTable
    from twisted_sendmail.sasl import TokenSource


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
    client = table.oauth_client_id
    if client is None:
        remedy = "write the client, as registered at the provider"
        raise InvalidValue("missing", remedy, "oauth-client-id")
    secret = secret_source(table, "oauth_client_secret", world_readable=world_readable)
    if table.oauth_refresh_token_file is not None:
        with at_key("oauth-refresh-token-file"):
            _check_refresh_token(table.oauth_refresh_token_file)
    with at_key(given[0].replace("_", "-")):
        try:
            return token_source(
                reactor,
                client,
                provider=table.oauth_provider,
                token_url=table.oauth_token_url,
                client_secret=None if secret is None else secret.read(),
                refresh_token_file=table.oauth_refresh_token_file,
                scope=table.oauth_scope,
            )
        except ImportError as e:
            raise InvalidValue(str(e)) from None


def _check_refresh_token(path: Path) -> None:
    SecretSource("file", path).check()
    folder = os.path.dirname(os.path.realpath(path))  # noqa: PTH120 - of a link's target
    if not os.access(folder, os.W_OK):
        why = f"{printable(folder, 200)} is not writable, and a new token replaces the file"
        raise InvalidValue(why, "make the directory writable for the relay's user")
