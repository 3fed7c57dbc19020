"""Which route mail takes: chosen by its sender, with patterns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted_sendmail.smtp import InvalidInput, Mailbox, domain_name, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted_sendmail.smtp import ReversePath

#: Pattern that matches every sender.
EVERYBODY = "*"
#: Pattern that matches the null reverse-path only.
NOBODY = "<>"


class RouteSenders(Protocol):
    """The attributes of a route that decide which mail takes it."""

    @property
    def name(self) -> str:
        """Name of the route."""
        ...

    @property
    def senders(self) -> tuple[str, ...]:
        """Patterns for senders, in canonical form."""
        ...


class Routing:
    """Choice of a route by sender: an address before its domain, and that before ``"*"``.

    :param routes: one of them is for ``"*"``.
    """

    def __init__(self, routes: Iterable[RouteSenders]) -> None:
        self._routes = {each: route.name for route in routes for each in route.senders}

    @property
    def everybody(self) -> str:
        """Name of the route for senders that no other pattern matches."""
        return self._routes[EVERYBODY]

    def of(self, sender: ReversePath, original: ReversePath | None = None) -> str:
        """Return the name of the route for *sender*.

        :param original: the sender before it was rewritten: a route that names it comes first.
        """
        routes = self._routes
        if len(routes) == 1:
            return routes[EVERYBODY]
        named = None if original is None else self._naming(original)
        return named or self._naming(sender) or routes[EVERYBODY]

    def _naming(self, sender: ReversePath) -> str | None:
        """Return the name of the route that names *sender* or its domain; None: there is none."""
        routes, box = self._routes, sender.mailbox
        if box is None:
            return routes.get(NOBODY)
        return routes.get(box.folded) or routes.get(f"@{box.ascii_domain.lower()}")

    def of_report(self, sender: ReversePath) -> str:
        """Return the route for a report to *sender*: that of the null reverse-path, or their own.

        Their own provider accepts their address; another one may refuse to relay to it.
        """
        return self._routes.get(NOBODY) or self.of(sender)


def pattern(text: str) -> str:
    """Return a pattern for senders in its canonical form.

    :raises InvalidInput: it is not a pattern.
    """
    if text in {EVERYBODY, NOBODY}:
        return text
    try:
        if text.startswith("@"):
            return "@" + domain_name(text[1:]).lower()
        return Mailbox.parse(text).folded
    except (InvalidInput, AttributeError) as e:
        raise InvalidInput(
            f"'{printable(str(text), 100)}' is no pattern for senders",
            detail=getattr(e, "detail", ""),
            remedy='write user@example.org, @example.org, "<>" or "*"',
        ) from None
