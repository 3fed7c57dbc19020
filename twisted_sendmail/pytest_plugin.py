"""The pytest fixture ``smtp_server``, available wherever this package is installed.

It is a new :class:`~twisted_sendmail.testing.background.BackgroundServer` for each test. The server
offers STARTTLS and AUTH, accepts any password of any user, and requires neither. A mark changes
that, with the parameters of the server::

    @pytest.mark.smtp_server(users={"jane": "s3cret"})

pytest loads this module in every run of every project, so all other imports wait until the fixture is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted_sendmail.testing.background import BackgroundServer


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark."""
    config.addinivalue_line(
        "markers", "smtp_server(**options): the parameters of the fixture smtp_server"
    )


@pytest.fixture
def smtp_server(request: pytest.FixtureRequest) -> Iterator[BackgroundServer]:
    """Run a real SMTP server on free ports of 127.0.0.1 that records what it receives."""
    from twisted_sendmail.smtp import SendmailError
    from twisted_sendmail.testing.background import BackgroundServer
    from twisted_sendmail.testing.loopback import ListeningOptions

    mark = request.node.get_closest_marker("smtp_server")
    if mark is not None:
        known = ListeningOptions.__optional_keys__
        wrong = [repr(value) for value in mark.args] + sorted(mark.kwargs.keys() - known)
        if wrong:
            pytest.fail(
                f"the mark smtp_server has no option {wrong[0]}; the options are "
                f"{', '.join(sorted(known))}, each by name",
                pytrace=False,
            )
    try:
        server = BackgroundServer(**(mark.kwargs if mark else {}))
    except SendmailError as e:
        pytest.fail(f"the mark smtp_server: {e}", pytrace=False)
    with server:
        yield server
