"""``twistd sendmail``: the relay, from a file or from flags.

Whatever is wrong with the configuration or the queue is found before ``twistd`` goes
into the background: one line on stderr, an exit status of ``sysexits.h``, and no port was open.
"""

from __future__ import annotations

import atexit
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.python import usage

from twisted_sendmail.daemon.config import configuration_of, read_configuration
from twisted_sendmail.daemon.configuration_error import ConfigurationError
from twisted_sendmail.daemon.flags import SOURCE, Flags
from twisted_sendmail.daemon.name_resolution import resolve_in_daemon_threads
from twisted_sendmail.daemon.queue_check import check_queue
from twisted_sendmail.daemon.service import RelayDaemon
from twisted_sendmail.daemon.text_log import log_to
from twisted_sendmail.smtp import SendmailError, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_sendmail.daemon.config import Configuration

#: What the flags are for, in the order of the help.
FLAGS = {
    "listen": "Take mail in here: tcp:127.0.0.1:2525, unix:/run/relay.socket …; may be repeated.",
    "certificate": "STARTTLS for the --listen before it: a PEM file, with its key unless --key.",
    "key": "The key of the --certificate.",
    "accounts": "For the --listen before it: a file of users who may send from anywhere.",
    "trusted": "For the --listen before it: networks that may send without, with commas.",
    "smarthost": "Deliver here: smtps://user@host, smtp+starttls://user@host; may be repeated.",
    "password-file": "Password of the --smarthost before it: the one line of this file.",
    "password-credential": "Password of the --smarthost before it, from a systemd credential of this name.",
    "password-command": "Password of the --smarthost before it, from what this line prints in a shell.",
    "password-environment": "Password of the --smarthost before it, from this variable of the environment.",
    "ca-file": "For the --smarthost before it: trust these authorities, not the system's.",
    "queue": "Keep the mail in this folder; it is made if need be.",
    "name": "The name of this host.",
    "admin": "Show health, metrics and the queue here: tcp:127.0.0.1:8025.",
    "admin-token-file": "Who knows the line in this file may act on the queue there.",
    "local-mail-to": "Send what is for users of this machine to this address.",
    "all-mail-from": "Let all mail be from this address.",
}


def _option(name: str, meaning: str) -> Callable[[Any, str], None]:
    def opt(self: Options, value: str) -> None:
        self.flags.add(name, value)

    opt.__doc__ = meaning
    return opt


class Options(usage.Options):
    """What may be said behind ``twistd sendmail``."""

    optParameters = [  # noqa: RUF012 - usage.Options wants a list of the class
        ["config", "c", None, "Read all from this file (TOML); no other option goes with it."],
    ]
    optFlags = [  # noqa: RUF012 - the same
        ["check", None, "Say whether the configuration is good, and do no more."],
    ]
    longdesc = (
        "A relay: takes mail in, keeps it safe on disk, and delivers it to a smarthost over "
        "verified TLS, retrying and reporting. SIGHUP reads the configuration again, SIGUSR1 "
        "tries all mail at once. A password is never given on the command line."
    )

    def __init__(self) -> None:
        self.flags = Flags()
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped


for _name, _meaning in FLAGS.items():
    setattr(Options, f"opt_{_name.replace('-', '_')}", _option(_name, _meaning))


def makeService(options: Options) -> RelayDaemon:
    """See ``IServiceMaker``.

    :raises SystemExit: the configuration cannot be used, and the line was written to stderr.
    """
    from twisted.internet import reactor

    named = options["config"]
    if named is not None and options.flags.given:
        _leave("--config: other options are given too; say all in one place", os.EX_USAGE)
    if named is None and not options.flags.given:
        _leave("there is no configuration; give --config FILE, or --smarthost URL", os.EX_USAGE)
    # twistd may change its folder before it starts the service.
    path = None if named is None else Path(named).absolute()
    tree, here = options.flags.tree(), Path.cwd()

    def read() -> Configuration:
        if path is not None:
            return read_configuration(path, reactor)
        return configuration_of(tree, here, SOURCE, reactor)

    try:
        configuration = read()
        # A configuration may be checked while a relay has the queue.
        if not (options["check"] or _changes_user(options)):
            check_queue(configuration.queue)
    except ConfigurationError as e:
        _leave(str(e), e.status)
    except SendmailError as e:
        _leave(str(e), os.EX_CONFIG)
    if options["check"]:
        for warning in configuration.warnings:
            sys.stderr.write(f"twistd sendmail: warning: {warning}\n")
        _print_result(f"{printable(configuration.source)}: good")
        sys.exit(os.EX_OK)
    resolve_in_daemon_threads(reactor)
    station = _Station(reactor, configuration, read=read, leave=lambda error: _end(reactor, error))
    station.twistd = options.parent
    return station


class _Station(RelayDaemon):
    """One that ``twistd`` runs; *twistd* are its options."""

    twistd: Any = None

    def setServiceParent(self, parent: Any) -> None:  # noqa: N802 - Twisted's
        """See ``IService``; ``twistd`` does it before it begins to log."""
        log_to(sys.stdout, parent, self.twistd)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]  # Twisted leaves it untyped


def _changes_user(options: Options) -> bool:
    """Will the service be run by somebody else, who is to own the queue?"""
    parent: Any = options.parent
    return parent is not None and any(parent.get(key) is not None for key in ("uid", "gid"))


def _print_result(line: str) -> None:
    """Write *line* to stdout.

    :raises SystemExit: the line could not be written: status 74, and one line on stderr.
    """
    try:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except OSError as e:
        # Python flushes stdout again when it exits; without this it would write a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(e, BrokenPipeError):
            _leave(f"the result could not be written: {e.strerror}", os.EX_IOERR)


def _leave(line: str, status: int) -> NoReturn:
    sys.stderr.write(f"twistd sendmail: {line}\n")
    sys.exit(status)


def _end(reactor: Any, error: SendmailError) -> None:
    """End ``twistd`` from within: the reactor knows no exit status, so it is set at the very end."""
    status = getattr(error, "status", os.EX_CONFIG)

    def last() -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)

    atexit.register(last)
    reactor.stop()
