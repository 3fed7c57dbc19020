r"""Dialogues in the notation of the RFCs, read from files and played on the wire.

A file holds what was said, line by line::

    # What holds, in one sentence.
    # tls: starttls
    # user: tester s3cret-Pa55word
    # to: b@example.net, c@example.net
    S: 220 mx.example.net ESMTP
    C: EHLO client.example.org
    S: 250 mx.example.net
    ...
    -- accepted

``C:`` lines between two ``S:`` lines are one flight.  Between them stands what cannot
be said in lines: ``-- TLS`` (the handshake), ``-- close`` (the server closes the
connection), ``-- silence`` (it says nothing more, and time passes).  The last lines say
what came of it: ``-- accepted``, ``-- in doubt`` or the name of an error, several with
``or``; and, if the session did not end in peace, ``-- session: NameOfError``.

``\\xNN`` and ``\\r`` in a line are that octet; ``S:`` ending in ``\\`` has no line end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

DIALOGUES = Path(__file__).parent / "dialogues"


@dataclass
class Step:
    """What one side does: ``C`` or ``S`` with its octets, or ``--`` with a word."""

    who: str
    lines: list[bytes]

    @property
    def octets(self) -> bytes:
        return b"".join(self.lines)

    @property
    def word(self) -> str:
        return self.lines[0].decode()


@dataclass
class Dialogue:
    name: str
    about: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    outcome: str = ""
    session: str = ""

    def add(self, who: str, line: bytes) -> None:
        if not self.steps or self.steps[-1].who != who:
            self.steps.append(Step(who, []))
        self.steps[-1].lines.append(line)


_OUTCOME = re.compile(r"(accepted|in doubt|[A-Z][A-Za-z0-9]+)( or .*)?\Z")


def _octets(text: str) -> bytes:
    unfinished = text.endswith("\\")
    text = text[:-1] if unfinished else text
    octets = re.sub(
        rb"\\x([0-9a-f]{2})|\\r",
        lambda m: bytes([int(m[1], 16)]) if m[1] else b"\r",
        text.encode("utf-8"),
    )
    return octets if unfinished else octets + b"\r\n"


def read(path: Path) -> Dialogue:
    """Read one file.

    :raises ValueError: for a line in no notation.
    """
    found = Dialogue(path.stem)
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        kind, _, text = line.partition(" ")
        if kind == "#":
            key, colon, value = text.partition(": ")
            if colon and " " not in key:
                found.settings[key] = value
            else:
                found.about += f" {text}"
        elif kind in {"C:", "S:"}:
            found.add(kind[0], _octets(text))
        elif kind == "--" and text in {"TLS", "close", "silence"}:
            found.steps.append(Step("--", [text.encode()]))
        elif kind == "--" and text.startswith("session: "):
            found.session = text.removeprefix("session: ")
        elif kind == "--" and _OUTCOME.match(text):
            found.outcome = text
        elif line:
            raise ValueError(f"{path.name}:{number}: {line!r} is no line of a dialogue")
    if not (found.about and found.outcome):
        raise ValueError(f"{path.name} does not say what holds, or what came of it")
    found.about = found.about.strip()
    return found


def all_dialogues() -> list[Dialogue]:
    """Every file, by name."""
    return [read(path) for path in sorted(DIALOGUES.glob("*.txt"))]
