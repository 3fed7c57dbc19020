"""Cleanup policy, qualification and server limits for incoming mail, from the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.daemon.config_types import InvalidValue, at_key
from twisted_sendmail.message import Qualification, Rewriting
from twisted_sendmail.queue import CleanupPolicy
from twisted_sendmail.relay import Routing
from twisted_sendmail.smtp import EXTENSIONS, ServerSettings

if TYPE_CHECKING:
    from twisted_sendmail.daemon.config_schema import LimitsTable, RewriteTable, RootTable
    from twisted_sendmail.drop import DropSettings
    from twisted_sendmail.relay import RelaySettings


def cleanup_policy(tables: RootTable, relay: RelaySettings) -> CleanupPolicy:
    """Make the policy for mail that comes in to *relay*.

    :raises InvalidValue: naming the key that cannot be used.
    """
    rewrite = tables.rewrite
    return CleanupPolicy(
        relay.name,
        Routing(relay.routes).of,
        _rewriting(rewrite, relay.name),
        qualification(rewrite, relay.name),
        complete=rewrite.complete,
        max_hops=tables.limits.hops,
        dkim=relay.dkim,
    )


def qualification(table: RewriteTable, name: str) -> Qualification:
    """Return the domains of addresses that have none.

    :param name: our host name: there the relay finds out that a recipient is local.
    """
    domain = table.append_domain or name
    return Qualification(domain, domain if table.local_mail_to is None else name)


def _rewriting(table: RewriteTable, name: str) -> Rewriting | None:
    senders = dict(table.senders)
    if table.all_mail_from is not None:
        if "*" in senders:
            why = "there is a '*' in rewrite.senders too"
            raise InvalidValue(why, "write one of them", "rewrite.all-mail-from")
        senders["*"] = str(table.all_mail_from)
    if table.set_from_header and table.all_mail_from is None:
        why = "there is no address to set"
        raise InvalidValue(why, "give rewrite.all-mail-from too", "rewrite.set-from-header")
    if table.set_from_header and not table.complete:
        why = "rewrite.complete = false leaves every header as it is"
        raise InvalidValue(why, "remove one of them", "rewrite.set-from-header")
    admin = table.local_mail_to
    if table.local_domains and admin is None:
        why = "there is no address for mail to these domains"
        raise InvalidValue(why, "give rewrite.local-mail-to too", "rewrite.local-domains")
    if not (senders or table.masquerade or admin):
        return None
    with at_key("rewrite"):
        return Rewriting(
            senders=senders,
            masquerade=table.masquerade,
            admin=None if admin is None else str(admin),
            name=name,
            local_domains=table.local_domains,
            set_from=table.set_from_header,
        )


def server_settings(
    limits: LimitsTable | DropSettings, host: str, *, repair: bool, starttls: bool | None = None
) -> ServerSettings:
    """Make the settings of a server named *host* that accepts mail for the queue.

    RFC 5321 section 4.5.3.1 (sizes and limits).
    """
    return ServerSettings(
        host=host,
        require_hello=False,
        # A route honours it, or the message fails (RFC 8689 section 4.2.1).
        extensions=(*EXTENSIONS, "REQUIRETLS"),
        starttls=starttls,
        max_size=limits.message_size,
        max_header=limits.header_size,
        max_hops=limits.hops,
        max_recipients=limits.recipients,
        repair=repair,
    )
