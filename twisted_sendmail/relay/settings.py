"""Settings of a relay: its name, its routes, and how long it tries.

``daemon.config`` reads them from a file.
"""

from __future__ import annotations

from typing import Any

import attrs

from twisted_sendmail.client import PoolLimits, SubmissionServer
from twisted_sendmail.queue import DKIMDomain
from twisted_sendmail.relay.retry_policy import RetryPolicy
from twisted_sendmail.relay.routing import EVERYBODY, pattern
from twisted_sendmail.smtp import (
    ForwardPath,
    InvalidInput,
    Mailbox,
    check_each,
    check_positive,
    check_type,
    domain_name,
    printable,
)


def _servers(given: Any) -> tuple[SubmissionServer, ...]:
    return SubmissionServer.all_of(given)


def _patterns(given: Any) -> tuple[str, ...]:
    if isinstance(given, str):
        given = (given,)
    check_each("senders", given, str, "a list of addresses, @domains, '<>' or '*'")
    return tuple(pattern(each) for each in given)


@attrs.frozen
class RouteSettings:
    """One route: where mail of some senders is delivered to.

    :param name: name of the route in the queue, in logs and in metrics.
    :param servers: the best first, URLs or SubmissionServers; a server is used while those
        before it cannot be reached.
    :param senders: whose mail takes the route: addresses, ``@domain``, ``"<>"`` for mail with a
        null reverse-path, and ``"*"`` for everybody else.
    :param limits: limits of the connections.
    :param first: seconds after which a server that is down is tried again.
    :param most: longest such wait, each twice as long as the one before; also the wait after the
        server refused the credentials.
    :raises InvalidInput: a value cannot be used.
    """

    name: str
    servers: tuple[SubmissionServer, ...] = attrs.field(converter=_servers)
    senders: tuple[str, ...] = attrs.field(default=(EVERYBODY,), converter=_patterns)
    limits: PoolLimits = attrs.field(factory=PoolLimits)
    first: float = 4.0
    most: float = 900.0

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or not self.name.isprintable():
            raise InvalidInput("a route has no name", remedy="give it one printable word")
        check_type("limits", self.limits, PoolLimits, "a PoolLimits")
        if not self.servers:
            raise InvalidInput(f"route '{self.name}' has no server", remedy="give at least one")
        for name in ("first", "most"):
            what = f"the wait '{name}' of route '{self.name}'"
            check_positive(what, getattr(self, name), "seconds above zero")
        if self.first > self.most:
            raise InvalidInput(
                f"the waits of route '{self.name}' cannot be {self.first!r} to {self.most!r}",
                remedy="give seconds above zero, the longest last",
            )


def _domains(given: Any) -> tuple[DKIMDomain, ...]:
    domains = (given,) if isinstance(given, DKIMDomain) else given
    check_type("dkim", domains, (list, tuple), "a list of DKIMDomain")
    for each in domains:
        check_type("dkim", each, DKIMDomain, "a DKIMDomain")
        if [other.domain for other in domains].count(each.domain) > 1:
            shown = printable(each.domain, 100)
            raise InvalidInput(
                f"there are two DKIM domains {shown}", remedy="give one of them all of the keys"
            )
    return tuple(domains)


def _relay_name(given: Any) -> str:
    try:
        return domain_name(given)
    except (InvalidInput, AttributeError, TypeError):
        raise InvalidInput(
            f"the relay's name '{printable(str(given), 100)}' cannot be used",
            remedy="give a full host name, such as relay.example.org",
        ) from None


def _routes(given: Any) -> tuple[RouteSettings, ...]:
    check_type("routes", given, (list, tuple), "a list of RouteSettings")
    for each in given:
        check_type("a route", each, RouteSettings, "a RouteSettings")
    return tuple(given)


@attrs.frozen
class RelaySettings:
    """Settings of a relay.

    :param name: its host name, for reports and for header fields that it adds.
    :param routes: the routes; one of them is for ``"*"``.
    :param schedule: when mail is retried, and when that ends.
    :param postmaster: recipient of mail that can neither be delivered nor returned; None: such
        mail is set aside in the queue for the operator.
    :param postmaster_sender: address from which mail goes to the postmaster, for providers that refuse
        the null reverse-path; mail from or to this address is never reported.  None: there is none.
    :param keep_undeliverable: seconds after which mail that was set aside is removed; None: never.
    :param report_rate: reports a second to senders of mail that failed, in the long run.
    :param report_burst: reports that may be sent before that rate applies; a failure that may not
        be reported yet is retried.
    :param dkim: domains whose mail is signed.
    :param grace: seconds that messages on their way are given when the relay stops.
    :raises InvalidInput: a value cannot be used.
    """

    name: str = attrs.field(converter=_relay_name)
    routes: tuple[RouteSettings, ...] = attrs.field(converter=_routes)
    schedule: RetryPolicy = attrs.field(factory=RetryPolicy)
    postmaster: str | None = None
    postmaster_sender: str | None = None
    report_rate: float = 1.0
    report_burst: int = 100
    grace: float = 30.0
    keep_undeliverable: float | None = 5 * 86400.0
    dkim: tuple[DKIMDomain, ...] = attrs.field(default=(), converter=_domains)

    def __attrs_post_init__(self) -> None:
        check_type("schedule", self.schedule, RetryPolicy, "a RetryPolicy")
        self._check_routes()
        if self.postmaster is not None:
            _ = ForwardPath.parse(self.postmaster)
        if self.postmaster_sender is not None:
            _ = Mailbox.parse(self.postmaster_sender)
        keep = self.keep_undeliverable
        if keep is not None:
            check_positive("keep_undeliverable", keep, "seconds above zero, or None for ever")
        check_positive("report_rate", self.report_rate, "reports a second, above zero")
        check_positive("report_burst", self.report_burst, "one or more", whole=True)
        if self.grace != 0:
            check_positive("grace", self.grace, "seconds, zero or more")

    def _check_routes(self) -> None:
        if not self.routes:
            raise InvalidInput("the relay has no route", remedy="give at least one server")
        taken: dict[str, str] = {}
        names: set[str] = set()
        for route in self.routes:
            if route.name in names:
                raise InvalidInput(
                    f"two routes are called '{route.name}'", remedy="give each its own name"
                )
            names.add(route.name)
            for each in route.senders:
                if each in taken:
                    raise InvalidInput(
                        f"senders '{each}' have two routes, '{taken[each]}' and '{route.name}'",
                        remedy="name them once",
                    )
                taken[each] = route.name
        if EVERYBODY not in taken:
            raise InvalidInput(
                "some senders have no route", remedy="give one route the senders '*'"
            )
