"""The drawing of a route in a real browser: it can be read at 800 pixels, light and dark."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.scenarios.browser import Browser, browsing, contrast, why_not
from tests.scenarios.peers import require
from twisted_sendmail.cli.trace_drawing import svg
from twisted_sendmail.received import Trace

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADERS = sorted((Path(__file__).parents[1] / "received" / "headers").glob("*.txt"))
LONG = (
    b"Received: from " + b"W" * 300 + b".example (" + b"m" * 200 + b".example [2001:db8::1])\n"
    b"\tby " + b"Q" * 250 + b" with " + b"W" * 99 + b" id 1; Mon, 5 Jan 2026 10:00:00 +0000\n"
    b"Received: by " + b"M" * 90 + b".example with ESMTP; Mon, 5 Jan 2021 11:00:00 +0000\n"
    b"Date: Mon, 5 Jan 2026 11:00:00 +0100\n"
)
# The right edge of each text, whether a bar or a text covers it, and the colours of the text and the ground.
_SEEN = """
const numbers = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
const ground = getComputedStyle(document.querySelector('.ground')).fill;
const clipped = document.querySelector('#beside rect').width.baseVal.value;
const drawn = [...document.querySelectorAll('.bar, text')].map(element => {
  const {left, right, top, bottom} = element.getBoundingClientRect();
  return {element, left, right: element.hasAttribute('clip-path') ? Math.min(right, clipped) : right, top, bottom};
});
return drawn.filter(a => a.element.matches('text')).map(a => {
  const over = drawn.some(b => b !== a
    && a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom);
  const colour = numbers(getComputedStyle(a.element).fill);
  return [a.element.getAttribute('class'), a.element.textContent, a.right, over, colour, numbers(ground)];
});
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    require("browser", why_not())
    with browsing() as browser:
        yield browser


def test_every_text_of_a_drawing_can_be_read(chromium: Browser, tmp_path: Path) -> None:
    file = tmp_path / "route.svg"
    for header in (*(path.read_bytes() for path in HEADERS), LONG):
        file.write_text(svg(Trace.parse(header)), "utf-8")
        grounds = []
        for dark in (False, True):
            chromium.look(dark=dark, width=800)
            chromium.open(file.as_uri())
            for kind, text, right, over, ink, ground in chromium.run(_SEEN):
                assert not over, (kind, text)
                # A finding about names of such letters is cut.
                assert right <= 800 or header is LONG, (kind, text, right)
                if kind != "number":
                    assert contrast(ink, ground) >= 4.5, (kind, text)
            grounds.append(ground)
        in_light, in_dark = (sum(ground) for ground in grounds)
        assert (in_light > 700, in_dark < 100) == (True, True)
