"""Valid and invalid settings of a relay, and the choice of routes by sender."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from twisted_sendmail import InvalidInput, PoolLimits, RelaySettings, ReversePath, RouteSettings
from twisted_sendmail.relay import Routing

SERVER = "smtp+starttls://mx.example"


def route(name: str = "out", *senders: str, **options: Any) -> RouteSettings:
    return RouteSettings(name, SERVER, senders or ("*",), **options)


@pytest.mark.parametrize(
    ("sender", "expected"),
    [
        ("carol@example.com", "carol"),
        ("CAROL@Example.COM", "carol"),
        ("dave@example.com", "domain"),
        ("dave@sub.example.com", "all"),
        ("x@bücher.example", "books"),
        ("x@xn--bcher-kva.example", "books"),
        ("", "all"),
    ],
)
def test_the_address_goes_before_its_domain_and_that_before_all(sender: str, expected: str) -> None:
    routing = Routing(
        [
            route("all"),
            route("domain", "@Example.com"),
            route("carol", "Carol@example.com"),
            route("books", "@BÜCHER.example"),
        ]
    )
    assert routing.of(ReversePath.parse(sender)) == expected


def test_the_senders_of_a_route_can_be_given_to_another_one() -> None:
    made = route("quoted", '"A b"@Example.com')
    routing = Routing([route("all"), attrs.evolve(made, limits=PoolLimits(connections=1))])
    assert routing.of(ReversePath.parse('"a B"@example.com')) == "quoted"


def test_reports_may_have_a_route_of_their_own() -> None:
    routing = Routing([route("all"), route("reports", "<>"), route("carol", "c@x.example")])
    assert routing.of(ReversePath()) == "reports"
    assert routing.of_report(ReversePath.parse("c@x.example")) == "reports"
    routing = Routing([route("all"), route("carol", "c@x.example")])
    assert routing.of_report(ReversePath.parse("c@x.example")) == "carol"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: RelaySettings("r.example", ()),
        lambda: RelaySettings("r.example", (route("a", "@x.example"),)),
        lambda: RelaySettings("r.example", (route("a"), route("a", "@x.example"))),
        lambda: RelaySettings("r.example", (route("a"), route("b"))),
        lambda: RelaySettings("not a name", (route(),)),
        lambda: RelaySettings("r.example", (route(),), postmaster="nobody"),
        lambda: RelaySettings("r.example", (route(),), report_rate=0),
        lambda: RelaySettings("r.example", (route(),), grace=-1),
        lambda: RelaySettings("r.example", (route(),), keep_undeliverable=0.0),
        lambda: route("a", "no pattern"),
        lambda: route("a", "@"),
        lambda: route("a", 5),  # type: ignore[arg-type]
        lambda: route(""),
        lambda: route("a\nb"),
        lambda: route("a", first=0.0),
        lambda: route("a", first=10.0, most=5.0),
        lambda: RouteSettings("a", ()),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_remedy(wrong: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        wrong()
    assert caught.value.remedy
