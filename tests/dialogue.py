r"""Dialogues in the notation of the RFCs, read from files and played by both sides.

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
from base64 import b64decode
from dataclasses import dataclass, field
from pathlib import Path

from twisted_sendmail.smtp.command import (
    Auth,
    AuthCancel,
    AuthLine,
    Command,
    Content,
    Data,
    Hello,
    LoneDot,
    Mail,
    Quit,
    Rcpt,
    Rset,
    StartTLS,
    Verb,
)

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


def commands(
    lines: list[bytes], *, in_auth: bool, content: bool, lone: bool
) -> list[Command | bytes]:
    """What a client says to write *lines*: commands, and the content as it is on the wire.

    :param in_auth: the first line answers a challenge.
    :param content: the first lines are a content.
    :param lone: ... which is a lone dot.
    """
    said: list[Command | bytes] = []
    rest = list(lines)
    if content:
        end = rest.index(b".\r\n")
        said += [LoneDot()] if lone else [Content(), b"".join(rest[: end + 1])]
        rest = rest[end + 1 :]
    for line in rest:
        text = line.removesuffix(b"\r\n").decode("utf-8")
        said.append(_command(text, in_auth=in_auth))
        in_auth = False
    return said


def _command(text: str, *, in_auth: bool) -> Command:
    if in_auth:
        return AuthCancel() if text == "*" else AuthLine(b64decode(text))
    verb, _, rest = text.partition(" ")
    if verb in {"EHLO", "HELO"}:
        return Hello(rest, Verb[verb])
    if verb == "AUTH":
        mechanism, _, initial = rest.partition(" ")
        return Auth(mechanism, b64decode(initial) if initial else None)
    if verb in {"MAIL", "RCPT"}:
        path, _, parameters = rest.partition(":")[2].partition(" ")
        pairs = tuple((k, v or None) for k, _, v in (p.partition("=") for p in parameters.split()))
        kind = Mail if verb == "MAIL" else Rcpt
        return kind(path, pairs)  # type: ignore[arg-type]
    return {"STARTTLS": StartTLS, "DATA": Data, "RSET": Rset, "QUIT": Quit}[verb]()
