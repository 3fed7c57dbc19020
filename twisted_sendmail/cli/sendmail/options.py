"""The command line of ``sendmail(8)``, parsed as ``getopt(3)`` does.

Options of other sendmails that have no meaning here are accepted and ignored. Options that would
change the mail, and are not implemented, are refused.
"""

from __future__ import annotations

import enum
import getopt
import re
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted_sendmail.exit_status import CommandError
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted_sendmail.queue import Selection


HELP = """\
usage: sendmail [OPTION]... [RECIPIENT]...

Send the message on stdin. A line with only a dot ends it.

  -t             send it to the recipients in To, Cc and Bcc too
  -i, -oi        a line with only a dot does not end it
  -f, -r SENDER  the sender of the envelope; <> for none
  -F NAME        the sender's name, for a missing From field
  -N WHEN        reports: never, or some of success,failure,delay
  -R full|hdrs   how much of the message a report returns
  -V ID          the identifier that reports repeat
  -v             print the name under which the message was put into the spool directory
  -bs            speak SMTP on stdin and stdout
  -bp            print the queue, as mailq does
  -q             try the messages in the queue now; -qI, -qR, -qS: those of an id, recipient, sender
  -O QueueDirectory=DIR
                 the relay's spool directory
  -C FILE        the settings that the relay wrote

Other options of sendmail(8) are accepted and ignored."""


class SendmailMode(enum.Enum):
    """The action of a call, by the letter after ``-b``."""

    #: Deliver a message from stdin.
    DELIVER = "m"
    #: Print the queue.
    PRINT = "p"
    #: SMTP on stdin and stdout.
    SMTP = "s"
    #: Rebuild the alias database; there is none.
    ALIASES = "i"
    #: Try the queued messages now.
    FLUSH = "q"
    #: Print how the program is called.
    HELP = "--help"


class SendmailOptions(NamedTuple):
    """A parsed command line."""

    mode: SendmailMode = SendmailMode.DELIVER
    #: As given: each may be a list of addresses.
    recipients: tuple[str, ...] = ()
    #: ``-t``: add the recipients in the header.
    from_header: bool = False
    #: ``-i``: a line with only a dot does not end the message.
    ignore_dots: bool = False
    #: ``-f``; None: the user who runs the command.
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
    #: ``-C``: the relay's file of settings for local programs.
    settings: str | None = None
    #: ``-O QueueDirectory=``: the spool directory.
    spool: str | None = None
    #: ``-qI``, ``-qR``, ``-qS``: select messages by id, recipient or sender.
    flush: tuple[tuple[str, str], ...] = ()

    def selection(self) -> Selection | None:
        """Return the messages that :attr:`flush` selects; None if no message can match."""
        from twisted_sendmail.queue import Selection, id_number, id_text

        given = dict(self.flush)
        numbers = [id_number(value) for letter, value in self.flush if letter == "I"]
        ids = tuple(id_text(number) for number in numbers if number is not None)
        if numbers and not ids:
            return None
        return Selection(ids=ids, recipient=given.get("R"), sender=given.get("S"))


if TYPE_CHECKING:
    _Meaning = Callable[[SendmailOptions, str], SendmailOptions]
#: The mode of a program that is called by one of these names.
_NAMES = {"mailq": SendmailMode.PRINT, "newaliases": SendmailMode.ALIASES}


def parse(name: str, words: Sequence[str]) -> SendmailOptions:
    """Parse a command line; options may follow recipients, and ``--`` ends the options.

    :param name: the name by which the program was called.
    :raises CommandError: the command line cannot be used.
    """
    try:
        given, recipients = getopt.gnu_getopt(_optional_values(words), _SHORT_OPTIONS, ["help"])
    except getopt.GetoptError as e:
        if e.opt in _VALUED:
            raise CommandError(f"option -{e.opt} needs a value") from None
        dashes = "--" if len(e.opt) > 1 else "-"
        raise CommandError(f"option {dashes}{printable(e.opt, 40)} is not known") from None
    options = SendmailOptions(mode=_NAMES.get(name.rpartition("/")[2], SendmailMode.DELIVER))
    for option, value in given:
        if option == "--help":
            return options._replace(mode=SendmailMode.HELP)
        options = _MEANINGS[option[1]](options, value)
    options = options._replace(recipients=tuple(recipients))
    if options.mode is SendmailMode.DELIVER and not (recipients or options.from_header):
        raise CommandError(
            "there are no recipients; name them, or use -t to take them from the header"
        )
    return options


def _optional_values(words: Sequence[str]) -> list[str]:
    """Return *words* with ``-qVALUE`` and ``-dVALUE`` as two words each.

    Their value is optional: ``q::`` of ``getopt(3)``, which Python's lacks before 3.14.
    """
    result: list[str] = []
    left = iter(words)
    for word in left:
        joined = _WITH_OPTIONAL_VALUE.fullmatch(word)
        if joined is not None:
            flags, letter, value = joined.groups()
            result += [f"-{flags}{letter}", value]
        elif word == "--":
            result += [word, *left]
        elif _VALUE_FOLLOWS.fullmatch(word):
            result += [word, *islice(left, 1)]
        else:
            result.append(word)
    return result


def _set(name: str) -> _Meaning:
    return lambda options, value: _changed(options, name, value)


def _flag(name: str) -> _Meaning:
    return lambda options, _: _changed(options, name, True)


def _changed(options: SendmailOptions, name: str, value: Any) -> SendmailOptions:
    return options._replace(**{name: value})


def _ignore(options: SendmailOptions, _: str) -> SendmailOptions:
    return options


_INSTEAD = {
    "d": "run 'twistd sendmail' for a service",
    "D": "run 'twistd sendmail' for a service",
    "v": "addresses are not verified",
    "t": "there are no rewriting rules to test",
}


def _mode(options: SendmailOptions, value: str) -> SendmailOptions:
    if value in {"m", "p", "s", "i"}:
        return options._replace(mode=SendmailMode(value))
    instead = _INSTEAD.get(value, "use -bm, -bp, -bs or -bi")
    raise CommandError(f"-b{printable(value, 20)} is not supported; {instead}")


def _flush(options: SendmailOptions, value: str) -> SendmailOptions:
    """Take ``-q``, ``-q30m``, ``-qIid``, ``-qRpart``, ``-qSpart``, and ``-qf`` (in the foreground)."""
    if value[:1] == "!":
        raise CommandError("-q! is not supported; use 'twisted-sendmail queue flush'")
    if value[:1] in {"G", "Q", "L"}:
        raise CommandError(
            f"-q{printable(value, 20)} is not supported; use 'twisted-sendmail queue'"
        )
    if value[:1] in {"I", "R", "S"}:
        if len(value) < 2:
            raise CommandError(f"option -q{value} needs a value")
        options = options._replace(flush=(*options.flush, (value[0], value[1:])))
    # With -bp it selects what is printed. An interval starts no service.
    if options.mode is SendmailMode.PRINT:
        return options
    return options._replace(mode=SendmailMode.FLUSH)


def _notify(options: SendmailOptions, value: str) -> SendmailOptions:
    words = tuple(word.strip().upper() for word in value.split(",") if word.strip())
    if words != ("NEVER",) and not (words and set(words) <= {"SUCCESS", "FAILURE", "DELAY"}):
        raise CommandError(
            f"-N {printable(value, 40)} cannot be used; give never, or some of "
            "success,failure,delay"
        )
    return options._replace(notify=words)


def _return(options: SendmailOptions, value: str) -> SendmailOptions:
    return options._replace(ret=_one_of("R", value, "FULL", "HDRS"))


def _body_type(options: SendmailOptions, value: str) -> SendmailOptions:
    # The content itself shows whether it has 8-bit octets.
    _one_of("B", value, "7BIT", "8BITMIME")
    return options


def _one_of(letter: str, value: str, *words: str) -> str:
    if value.upper() in words:
        return value.upper()
    choice = " or ".join(word.lower() for word in words)
    raise CommandError(f"-{letter} {printable(value, 40)} cannot be used; give {choice}")


def _set_long(options: SendmailOptions, value: str) -> SendmailOptions:
    """Take ``-O name=value``; other sendmails have hundreds of names, which are ignored."""
    name, _, given = value.partition("=")
    name, given = name.strip().lower(), given.strip()
    if name == "ignoredots":
        return options._replace(ignore_dots=given.lower() not in {"false", "f", "no", "0"})
    return options._replace(spool=given) if name == "queuedirectory" else options


def _set_short(options: SendmailOptions, value: str) -> SendmailOptions:
    """Take ``-oi``; all others (``-oem``, ``-odb``, ``-om``) are ignored."""
    return options._replace(ignore_dots=True) if value.startswith("i") else options


_MEANINGS: dict[str, _Meaning] = {
    # A (which configuration), D (debug log), G (gateway), L (syslog tag), M (macro), U (initial
    # submission), X (traffic log), c, d (debug), e (error mode), h (hops), m (me too), n (no
    # aliases), p (protocol), s and x.
    **dict.fromkeys("ADGLMUXcdehmnpsx", _ignore),
    "B": _body_type,
    "C": _set("settings"),
    "F": _set("full_name"),
    "I": lambda options, _: options._replace(mode=SendmailMode.ALIASES),
    "N": _notify,
    "O": _set_long,
    "R": _return,
    "V": _set("envid"),
    "b": _mode,
    "f": _set("sender"),
    "i": _flag("ignore_dots"),
    "o": _set_short,
    "q": _flush,
    "r": _set("sender"),
    "t": _flag("from_header"),
    "v": _flag("verbose"),
}
#: Every letter that is accepted.
LETTERS = frozenset(_MEANINGS)
_VALUED = frozenset("ABCDFLMNORVXbdefhopqr")
_SHORT_OPTIONS = "".join(f"{each}:" if each in _VALUED else each for each in sorted(LETTERS))
_FLAGS = "".join(sorted(LETTERS - _VALUED))
_WITH_OPTIONAL_VALUE = re.compile(rf"-([{_FLAGS}]*)([dq])(.*)", re.DOTALL)
_VALUE_FOLLOWS = re.compile(rf"-[{_FLAGS}]*[{''.join(sorted(_VALUED))}]")
