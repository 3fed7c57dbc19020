"""``twistd sendmail``: the relay, configured by a file or by flags.

An error in the configuration or the queue is reported before ``twistd`` goes into the background: one line
on stderr, an exit status of ``sysexits.h``, and no port was open.
"""

from __future__ import annotations

import atexit
import os
import re
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.python import usage

from twisted_sendmail.admin.local_mail import LocalMail
from twisted_sendmail.daemon.config import configuration_of, read_configuration
from twisted_sendmail.daemon.config_schema import Key, all_keys
from twisted_sendmail.daemon.config_types import ConfigSource, ConfigurationError
from twisted_sendmail.daemon.drop_intake import check_drop_directory
from twisted_sendmail.daemon.logging import log_to
from twisted_sendmail.daemon.resolver import DaemonThreadResolver
from twisted_sendmail.daemon.service import RelayDaemon
from twisted_sendmail.drop import DropDirectory
from twisted_sendmail.exit_status import ExitStatus, status_of_start
from twisted_sendmail.queue import check_queue_place, prepare_queue_place
from twisted_sendmail.smtp import SendmailError, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_sendmail.daemon.config import Configuration

#: The table, the key and the meaning of each flag.
FLAGS = {
    key.flag: (table, name, key, meaning)
    for table, name, key, meaning in all_keys()
    if key.flag is not None
}
#: Errors name the flags instead of the keys.
COMMAND_LINE = ConfigSource(
    "the command line",
    {f"{table}.{name}".lstrip("."): f"--{flag}" for flag, (table, name, *_) in FLAGS.items()}
    | {"smarthost": "--smarthost", "listen": "--listen"},
)


class Options(usage.Options):
    """The options of ``twistd sendmail``: ``--config``, ``--check``, and the flags of the keys."""

    optParameters = [  # noqa: RUF012 - usage.Options wants a list of the class
        [
            "config",
            "c",
            None,
            "Read the configuration from this file (TOML); no flag goes with it.",
        ],
    ]
    optFlags = [  # noqa: RUF012 - the same
        ["check", None, "Check the configuration, print the result, and do no more."],
    ]
    longdesc = (
        "A relay: accepts mail, keeps it safe on disk, and delivers it to a smarthost over "
        "verified TLS, retrying and reporting. SIGHUP reads the configuration again, SIGUSR1 "
        "tries all mail at once. A password is never given on the command line."
    )

    def __init__(self) -> None:
        #: The configuration that the flags make, as TOML would give it.
        self.tree: dict[str, Any] = {}
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped

    def add_flag(self, flag: str, value: str) -> None:
        """Add a flag to the tree.

        A flag of a smarthost or listener belongs to the ``--smarthost`` or ``--listen`` before it;
        one that comes before the first of them belongs to the first.
        """
        table, name, key, _ = FLAGS[flag]
        place = self.tree
        if table in {"smarthost", "listen"}:
            entries = self.tree.setdefault(table, [])
            if not entries or (flag == table and name in entries[-1]):
                entries.append({})
            place = entries[-1]
        elif table:
            place = self.tree.setdefault(table, {})
        place[name] = value.split(",") if isinstance(key.default, list) else value


def _option(flag: str, table: str, key: Key, meaning: str) -> Callable[[Options, str], None]:
    def opt(self: Options, value: str) -> None:
        self.add_flag(flag, value)

    # Without the markup of the reference page, and its references in parentheses.
    text = re.sub(r" \(:doc:`[^`]*`\)", "", meaning)
    text = re.sub(r":\w+:`([^`<]*?)(?: <[^`]*)?`|``", r"\1", text)
    if table in {"smarthost", "listen"} and flag != table:
        text = f"for the --{table} before it: {text}"
    notes = ["may be repeated"] * (flag in {"smarthost", "listen"}) + ["with commas"] * isinstance(
        key.default, list
    )
    opt.__doc__ = f"{text[0].upper()}{text[1:]}{''.join(f' ({note})' for note in notes)}"
    return opt


for _flag, (_table, _, _key, _meaning) in FLAGS.items():
    setattr(Options, f"opt_{_flag.replace('-', '_')}", _option(_flag, _table, _key, _meaning))


def makeService(options: Options) -> RelayDaemon:
    """See ``IServiceMaker``.

    :raises SystemExit: the configuration cannot be used; the reason was written to stderr.
    """
    from twisted.internet import reactor

    file = options["config"]
    if file is not None and options.tree:
        _exit("--config: other options are given too; give all in one place", ExitStatus.USAGE)
    if file is None and not options.tree:
        _exit("there is no configuration; give --config FILE, or --smarthost URL", ExitStatus.USAGE)
    # twistd may change its directory before it starts the service.
    path = None if file is None else Path(file).absolute()
    here = Path.cwd()

    def read() -> Configuration:
        if path is not None:
            return read_configuration(path, reactor)
        return configuration_of(options.tree, here, COMMAND_LINE, reactor)

    try:
        configuration = read()
        # --check works while a relay has the queue; another user must not own the queue.
        if options["check"]:
            _check(configuration)
        if not _changes_user(options):
            prepare_queue_place(configuration.queue)
    except SendmailError as e:
        _exit(str(e), status_of_start(e))
    any_reactor: Any = reactor
    any_reactor.installNameResolver(DaemonThreadResolver(reactor))
    service = _TwistdService(
        reactor, configuration, read=read, start_failed=lambda error: _stop(reactor, error)
    )
    service.twistd_options = options.parent
    return service


class _TwistdService(RelayDaemon):
    """The relay under ``twistd``, with the relay's own text log."""

    twistd_options: Any = None

    def setServiceParent(self, parent: Any) -> None:  # noqa: N802 - Twisted's
        """See ``IService``; ``twistd`` calls it before it begins to log."""
        try:
            self.text_log = log_to(sys.stdout, parent, self.twistd_options)
        except OSError as e:
            _exit(f"the log file {e.filename} cannot be opened: {e.strerror}", ExitStatus.CANTCREAT)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]  # Twisted leaves it untyped


def _check(configuration: Configuration) -> NoReturn:
    """End ``--check``: the configuration can be used, and so can the directories that it names.

    :raises SendmailError: the relay could not use one of them.
    :raises SystemExit: the result is printed.
    """
    check_queue_place(configuration.queue)
    _check_files(configuration)
    settings = configuration.drop
    owner = None
    if os.geteuid() == 0:
        # The relay runs as the owner of its queue, which root may not have made yet.
        for path in (settings.relay_directory, settings.directory):
            if Path(path).is_dir():
                found = Path(path).stat()
                owner = found.st_uid, found.st_gid
                break
    # Without spool the relay makes its own.
    if not settings.private or Path(settings.directory).exists():
        check_drop_directory(settings, owner)
    for warning in configuration.warnings:
        sys.stderr.write(f"twistd sendmail: warning: {warning}\n")
    _print_result(f"{printable(configuration.source)}: good")
    with suppress(OSError), closing(DropDirectory(settings.directory)) as directory:
        local_mail = LocalMail(*directory.totals()).line
        if local_mail is not None:
            _print_result(local_mail)
    sys.exit(ExitStatus.OK)


def _check_files(configuration: Configuration) -> None:
    """Check that the directories exist in which the relay makes sockets and its log.

    :raises ConfigurationError: one does not, or cannot be written to.
    """
    admin = configuration.admin
    endpoints = [each.endpoint for each in (*configuration.listeners, configuration.submission)]
    if admin is not None and admin.endpoint is not None:
        endpoints.append(admin.endpoint)
    files = [Path(each.path) for each in endpoints if each.path is not None]
    if configuration.json_log is not None:
        files.append(configuration.json_log)
    for file in files:
        directory = file.absolute().parent
        # The relay makes the directory of its queue.
        if str(directory) == configuration.drop.queue:
            continue
        why = ""
        if not directory.is_dir():
            why = f"there is no directory {printable(str(directory), 300)}"
        elif not os.access(directory, os.W_OK | os.X_OK):
            why = f"the directory {printable(str(directory), 300)} is not writable"
        if why:
            what = f"{printable(configuration.source)}: {printable(str(file), 300)} cannot be made"
            remedy = "make the directory for the relay's user, or name another"
            raise ConfigurationError(what, detail=why, remedy=remedy)


def _changes_user(options: Options) -> bool:
    """Return True if ``twistd`` will run the service as another user."""
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
            _exit(f"the result could not be written: {e.strerror}", ExitStatus.IOERR)


def _exit(line: str, status: ExitStatus) -> NoReturn:
    sys.stderr.write(f"twistd sendmail: {line}\n")
    sys.exit(status)


def _stop(reactor: Any, error: SendmailError) -> None:
    """Stop ``twistd`` with an exit status, which a reactor does not have: set it at the very end."""

    def exit_now() -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status_of_start(error))

    atexit.register(exit_now)
    reactor.stop()
