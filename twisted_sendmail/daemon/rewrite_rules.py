"""From the table ``[rewrite]`` to the rules for addresses, for the relay and for who feeds its queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.message import Rewriting
from twisted_sendmail.smtp import InvalidInput

if TYPE_CHECKING:
    from twisted_sendmail.daemon.configuration_error import ConfigSource
    from twisted_sendmail.daemon.reading import Values


def rewriting_of(values: Values, name: str, source: ConfigSource) -> Rewriting | None:
    """The rules; None: there are none.

    :param values: of the table, checked.
    :param name: our host name.
    :raises ConfigurationError: for what cannot be used.
    """
    senders = dict(values["senders"])
    if values["all-mail-from"] is not None:
        if "*" in senders:
            why = "there is a '*' in rewrite.senders too"
            raise source.error("rewrite.all-mail-from", why, "say it once")
        senders["*"] = str(values["all-mail-from"])
    admin = values["local-mail-to"]
    if not (senders or values["masquerade"] or admin):
        return None
    try:
        return Rewriting(
            senders=senders,
            masquerade=values["masquerade"],
            admin=None if admin is None else str(admin),
            name=name,
            local_domains=values["local-domains"],
        )
    except InvalidInput as e:
        why = f"{e.what}{e.detail and ': '}{e.detail}"
        raise source.error("rewrite", why, e.remedy) from None
