"""A server that sends a secret back: no transcript, watch or error shows it, however it is cut."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from tests.client.conftest import Net
from tests.client.scripted_server import CLOSE, PASSWORD, USER

PLAIN = b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()
CODED = b64encode(PASSWORD.encode()).decode()
#: What a server may send back of a secret: as it is typed, and as it went over the wire.
FORMS = [PASSWORD, PLAIN, CODED]


def shown(net: Net, result: Any) -> str:
    """All that a user of the package may come to see."""
    found = [*net.watched]
    error = result.error
    if error is not None:
        found += [str(error), repr(error), *map(str, getattr(error, "transcript", ()) or ())]
        found += [str(error.reply), repr(error.reply)]
    else:
        found += [str(result.value), repr(result.value)]
        found += [repr(outcome) for outcome in result.value.outcomes]
    return "\n".join(found)


@pytest.mark.parametrize("form", FORMS, ids=["password", "PLAIN", "base64"])
@pytest.mark.parametrize("code", ["535 5.7.8", "535-5.7.8", "454 4.7.0"])
def test_a_secret_in_the_reply_to_auth_cut_anywhere(net: Net, form: str, code: str) -> None:
    line = f"{code} you said {form} and that is wrong\r\n"
    line += "535 5.7.8 no\r\n" if "-" in code else ""
    octets = line.encode()
    for cut in range(1, len(octets)):
        net.watched.clear()
        pieces = (octets[:cut], octets[cut:])
        server = net.server({"AUTH": pieces})
        result = net.start(server)
        net.link.apart = True
        net.pump.run()
        assert result.error is not None
        text = shown(net, result)
        assert f"S: {code[:3]}" in text
        for each in FORMS:
            assert each not in text


@pytest.mark.parametrize("form", FORMS, ids=["password", "PLAIN", "base64"])
@pytest.mark.parametrize("key", ["MAIL", "RCPT", ".", "QUIT"])
def test_a_secret_in_a_later_reply_octet_by_octet(net: Net, form: str, key: str) -> None:
    octets = f"250 2.0.0 hello {form}\r\n".encode()
    server = net.server({key: tuple(octets[at : at + 1] for at in range(len(octets)))})
    result = net.start(server)
    net.link.apart = True
    net.pump.run()
    assert result.fired == 1
    text = shown(net, result)
    for each in FORMS:
        assert each not in text


@pytest.mark.parametrize("form", FORMS, ids=["password", "PLAIN", "base64"])
def test_a_secret_over_two_lines_of_a_reply_that_does_not_end(net: Net, form: str) -> None:
    half = len(form) // 2
    pieces = (b"535-5.7.8 " + form[:half].encode(), form[half:].encode() + b"\r\n", CLOSE)
    result = net.start(net.server({"AUTH": pieces}))
    net.link.apart = True
    net.pump.run()
    assert result.error is not None
    text = shown(net, result)
    for each in FORMS:
        assert each not in text
