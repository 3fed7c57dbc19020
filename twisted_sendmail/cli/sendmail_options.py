"""The command line of ``sendmail(8)``, as programs have written it for forty years.

What it says, as a value; nothing is done here.  Options may be joined to their values or
apart, and several flags share a dash, as ``getopt(3)`` has it.  What other sendmails take
and what means nothing here is taken and forgotten; what would change the mail and is not
to be had is refused.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from twisted_sendmail.smtp import printable


class Misuse(Exception):
    """The command line cannot be used: one line that says why."""


class Mode(enum.Enum):
    """What it is called for."""

    #: Take a message from stdin.
    DELIVER = "m"
    #: Print the queue.
    PRINT = "p"
    #: SMTP on stdin and stdout.
    SMTP = "s"
    #: Rebuild the alias database: there is none.
    ALIASES = "i"
    #: Try what waits.
    FLUSH = "q"


@dataclass(frozen=True)
class Invocation:
    """What was asked for."""

    mode: Mode = Mode.DELIVER
    #: As they were written: each may be a list of addresses.
    recipients: tuple[str, ...] = ()
    #: ``-t``: recipients are in the header too.
    from_header: bool = False
    #: ``-i``: a line that is one dot does not end the message.
    ignore_dots: bool = False
    #: ``-f``; None: who runs it.
    sender: str | None = None
    #: ``-F``.
    full_name: str | None = None
    #: ``-N``, in upper case.
    notify: tuple[str, ...] = ()
    #: ``-R``: ``FULL`` or ``HDRS``.
    ret: str | None = None
    #: ``-V``.
    envid: str | None = None
    #: ``-v``.
    verbose: bool = False
    #: ``-C``: the configuration file.
    config: str | None = None
    #: ``-O QueueDirectory=``.
    queue: str | None = None
    #: ``-qI``, ``-qR``, ``-qS``: which messages to flush, by id, recipient or sender.
    flush: tuple[tuple[str, str], ...] = ()


#: Called by these names, it does these things.
NAMES = {"mailq": Mode.PRINT, "newaliases": Mode.ALIASES}

# Those with a value: A (which configuration), B (body type), C, D (debug log), F, L (syslog
# tag), M (macro), N, O, R, V, X (traffic log), b, d, e (error mode), f, h (hops), o, p
# (protocol), q and r; that of d and q is joined or not there at all.
_VALUED = frozenset("ABCDFLMNORVXbefhopr")
_JOINED = frozenset("dq")
# What means nothing here; besides those above: G (gateway), U (initial submission), c, m (me
# too), n (no aliases), s and x.
_FORGOTTEN = frozenset("ADGLMUXcdehmnpsx")
_TEXTS = {"C": "config", "F": "full_name", "V": "envid", "f": "sender", "r": "sender"}
_FLAGS = {"i": "ignore_dots", "t": "from_header", "v": "verbose"}

_WHERE_INSTEAD = {
    "d": "run 'twistd sendmail' for a service",
    "D": "run 'twistd sendmail' for a service",
    "v": "addresses are not verified",
    "t": "there are no rewriting rules to test",
}


def parse(name: str, words: Sequence[str]) -> Invocation:
    """What *words* ask for.

    Options may stand behind recipients too; ``--`` ends them.

    :param name: what the program was called.
    :raises Misuse: they cannot be used.
    """
    asked = Invocation(mode=NAMES.get(PurePath(name).name, Mode.DELIVER))
    recipients: list[str] = []
    left = iter(words)
    for word in left:
        if word == "--":
            recipients += left
        elif word.startswith("--"):
            raise Misuse(f"option {printable(word.partition('=')[0], 40)} is not known")
        elif word.startswith("-") and word != "-":
            for letter, value in _options(word[1:], left):
                asked = _with(asked, letter, value)
        else:
            recipients.append(word)
    asked = replace(asked, recipients=tuple(recipients))
    if asked.mode is Mode.DELIVER and not recipients and not asked.from_header:
        raise Misuse("there are no recipients; name them, or use -t to take them from the header")
    return asked


def _options(cluster: str, left: Iterator[str]) -> Iterator[tuple[str, str]]:
    """The options behind one dash, and their values."""
    while cluster:
        letter, cluster = cluster[0], cluster[1:]
        if letter in _JOINED:
            yield letter, cluster
            return
        if letter in _VALUED:
            value = cluster or next(left, None)
            if value is None:
                raise Misuse(f"option -{letter} needs a value")
            yield letter, value
            return
        yield letter, ""


def _with(asked: Invocation, letter: str, value: str) -> Invocation:
    """*asked*, and this besides."""
    if letter in _TEXTS:
        return replace(asked, **{_TEXTS[letter]: value})  # type: ignore[arg-type]  # all are text
    if letter in _FLAGS:
        return replace(asked, **{_FLAGS[letter]: True})  # type: ignore[arg-type]  # all are flags
    if letter in _FORGOTTEN:
        return asked
    if letter not in _MEANT:
        raise Misuse(f"option -{printable(letter)} is not known")
    return _MEANT[letter](asked, value)


def _mode(asked: Invocation, value: str) -> Invocation:
    if value in {"m", "p", "s", "i"}:
        return replace(asked, mode=Mode(value))
    instead = _WHERE_INSTEAD.get(value, "use -bm, -bp, -bs or -bi")
    raise Misuse(f"-b{printable(value, 20)} cannot be done; {instead}")


def _flushing(asked: Invocation, value: str) -> Invocation:
    """``-q``, ``-q30m``, ``-qIid``, ``-qRpart``, ``-qSpart``, and ``-qf`` (in the foreground)."""
    if value[:1] == "!":
        raise Misuse("-q! cannot be done; use 'twisted-sendmail queue flush'")
    if value[:1] in {"I", "R", "S"}:
        if len(value) < 2:
            raise Misuse(f"option -q{value} needs a value")
        asked = replace(asked, flush=(*asked.flush, (value[0], value[1:])))
    elif value[:1] in {"G", "Q", "L"}:
        raise Misuse(f"-q{printable(value, 20)} cannot be done; use 'twisted-sendmail queue'")
    # With -bp it says of what to print the queue; no service is started for an interval.
    return asked if asked.mode is Mode.PRINT else replace(asked, mode=Mode.FLUSH)


def _notify(asked: Invocation, value: str) -> Invocation:
    words = tuple(word.strip().upper() for word in value.split(",") if word.strip())
    if words != ("NEVER",) and not (words and set(words) <= {"SUCCESS", "FAILURE", "DELAY"}):
        raise Misuse(
            f"-N {printable(value, 40)} cannot be used; give never, or some of "
            "success,failure,delay"
        )
    return replace(asked, notify=words)


def _one_of(letter: str, value: str, *words: str) -> str:
    if value.upper() in words:
        return value.upper()
    choice = " or ".join(word.lower() for word in words)
    raise Misuse(f"-{letter} {printable(value, 40)} cannot be used; give {choice}")


def _long(asked: Invocation, value: str) -> Invocation:
    """``-O name=value``; what is not known is forgotten, as there are hundreds."""
    name, _, given = value.partition("=")
    name = name.strip().lower()
    if name == "ignoredots":
        return replace(asked, ignore_dots=given.strip().lower() not in {"false", "f", "no", "0"})
    if name == "queuedirectory":
        return replace(asked, queue=given.strip())
    return asked


def _body_type(asked: Invocation, value: str) -> Invocation:
    # It is looked at, and known; but what is nonsense is told.
    _one_of("B", value, "7BIT", "8BITMIME")
    return asked


def _short(asked: Invocation, value: str) -> Invocation:
    """``-oi``, and ``-oem``, ``-odb``, ``-om`` and all the others, which are forgotten."""
    return replace(asked, ignore_dots=True) if value.startswith("i") else asked


_MEANT: dict[str, Callable[[Invocation, str], Invocation]] = {
    "B": _body_type,
    "I": lambda asked, _: replace(asked, mode=Mode.ALIASES),
    "N": _notify,
    "O": _long,
    "R": lambda asked, value: replace(asked, ret=_one_of("R", value, "FULL", "HDRS")),
    "b": _mode,
    "o": _short,
    "q": _flushing,
}
