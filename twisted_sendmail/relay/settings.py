"""What a relay is told: its name, the ways out and which mail takes which, its patience.

Values.  Where they are read from is ``operation``'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from twisted_sendmail.client import PoolLimits, SubmissionServer
from twisted_sendmail.relay.retry_policy import RetryPolicy
from twisted_sendmail.smtp import ForwardPath, InvalidInput, Mailbox, domain_name, printable

#: The pattern that every sender fits, and the one that only the null reverse-path fits.
EVERYBODY = "*"
NOBODY = "<>"


@dataclass(frozen=True)
class RouteSettings:
    """One way out.

    :param name: its name in the queue, in logs and figures.
    :param servers: best first, URLs or SubmissionServers; the next one is for what the
        ones before cannot be reached for.
    :param senders: whose mail takes it: addresses, ``@domain``, ``"<>"`` for reports, and
        ``"*"`` for everybody else.
    :param limits: the bounds of its connections.
    :param first: seconds after which a server that is down is asked again.
    :param most: the longest of such waits, each twice as long as the one before; also the
        one after a password was refused.
    :raises InvalidInput: for what cannot be used.
    """

    name: str
    servers: tuple[SubmissionServer, ...]
    senders: tuple[str, ...] = (EVERYBODY,)
    limits: PoolLimits = field(default_factory=PoolLimits)
    first: float = 4.0
    most: float = 900.0

    def __post_init__(self) -> None:
        put = object.__setattr__
        if not isinstance(self.name, str) or not self.name or not self.name.isprintable():
            raise InvalidInput("a route has no name", remedy="give it one printable word")
        given = self.servers
        if isinstance(given, (str, SubmissionServer)):
            given = (given,)
        put(self, "servers", tuple(SubmissionServer.of(each) for each in given))
        if not self.servers:
            raise InvalidInput(f"route '{self.name}' has no server", remedy="give at least one")
        senders = (self.senders,) if isinstance(self.senders, str) else self.senders
        put(self, "senders", tuple(pattern(each) for each in senders))
        if not (0 < self.first <= self.most < float("inf")):
            raise InvalidInput(
                f"the waits of route '{self.name}' cannot be {self.first!r} to {self.most!r}",
                remedy="give seconds above zero, the longest last",
            )


@dataclass(frozen=True)
class RelaySettings:
    """All that a relay is told.

    :param name: its host name, as it stands in reports and in what it adds to a header.
    :param routes: the ways out; one of them is for ``"*"``.
    :param schedule: its patience.
    :param postmaster: who gets what can neither be delivered nor reported; None: it is set
        aside in the queue for the operator.
    :param keep_undeliverable: seconds after which what was set aside so is removed; None: never.
    :param report_rate: reports a second to senders of mail that failed, in the long run.
    :param report_burst: reports that may go out before that rate is felt; what fails
        beyond it is set aside.
    :param grace: seconds that messages on their way are given when the relay stops.
    :raises InvalidInput: for what cannot be used.
    """

    name: str
    routes: tuple[RouteSettings, ...]
    schedule: RetryPolicy = field(default_factory=RetryPolicy)
    postmaster: str | None = None
    report_rate: float = 1.0
    report_burst: int = 100
    grace: float = 30.0
    keep_undeliverable: float | None = 5 * 86400.0

    def __post_init__(self) -> None:
        put = object.__setattr__
        try:
            put(self, "name", domain_name(self.name))
        except (InvalidInput, AttributeError):
            raise InvalidInput(
                f"the relay's name '{printable(str(self.name), 100)}' cannot be used",
                remedy="give a full host name, such as relay.example.org",
            ) from None
        put(self, "routes", tuple(self.routes))
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
        if self.postmaster is not None:
            _ = ForwardPath.parse(self.postmaster)
        self._check_amounts()

    def _check_amounts(self) -> None:
        keep = self.keep_undeliverable
        if keep is not None and not (0 < keep < float("inf")):
            raise InvalidInput(
                f"what is undeliverable cannot be kept for {keep!r} seconds",
                remedy="give seconds above zero, or None for ever",
            )
        right = self.report_rate > 0 and self.report_burst >= 1 and self.grace >= 0
        if not right:
            raise InvalidInput(
                "the rate or burst of reports, or the grace, cannot be used",
                remedy="give a rate above zero, a burst of one or more, and seconds",
            )


def pattern(text: str) -> str:
    """A pattern for senders in the form it is compared in.

    :raises InvalidInput: it is none.
    """
    if text in {EVERYBODY, NOBODY}:
        return text
    try:
        if text.startswith("@"):
            return "@" + domain_name(text[1:]).lower()
        return key(Mailbox.parse(text))
    except (InvalidInput, AttributeError) as e:
        raise InvalidInput(
            f"'{printable(str(text), 100)}' is no pattern for senders",
            detail=getattr(e, "detail", ""),
            remedy='write user@example.org, @example.org, "<>" or "*"',
        ) from None


def key(mailbox: Mailbox) -> str:
    """An address in the form it is compared in: nobody has two that differ in case."""
    return f"{mailbox.local_part.casefold()}@{mailbox.ascii_domain.lower()}"
