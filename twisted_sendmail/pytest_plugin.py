"""The fixture ``smtp_server``, which pytest finds when this package is installed.

It is a :class:`~twisted_sendmail.testing.background.BackgroundServer`, a new one for
each test: it offers STARTTLS and AUTH, takes any user and any password, and demands
neither.  A mark changes that, with the server's own parameters::

    @pytest.mark.smtp_server(users={"jane": "s3cret"})

Everything else is imported only when the fixture is used: pytest loads this module
in every run, in whatever project.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted_sendmail.testing.background import BackgroundServer


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line(
        "markers", "smtp_server(**options): how the fixture smtp_server is to behave"
    )


@pytest.fixture
def smtp_server(request: pytest.FixtureRequest) -> Iterator[BackgroundServer]:
    """A real SMTP server on a free port of 127.0.0.1, that keeps what it is sent."""
    from twisted_sendmail.testing.background import BackgroundServer

    mark = request.node.get_closest_marker("smtp_server")
    with BackgroundServer(**(mark.kwargs if mark else {})) as server:
        yield server
