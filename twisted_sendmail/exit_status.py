"""The exit status of every command, and of ``twistd sendmail``: codes of ``sysexits.h``.

One table maps each class of error to its code. A class without a row has the code of its base
class. The table names the classes, so that this module imports neither Twisted nor a database.
"""

from __future__ import annotations

import enum
import os
from types import MappingProxyType
from typing import TYPE_CHECKING

from twisted_sendmail.smtp import SendmailError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted_sendmail.smtp import DeliveryReport, RecipientResult

#: The environment variable that asks for a traceback of a fault of this program.
DEBUG_VARIABLE = "TWISTED_SENDMAIL_DEBUG"


class ExitStatus(enum.IntEnum):
    """The codes in use."""

    #: Success.
    OK = 0
    #: The command line is wrong.
    USAGE = 64
    #: The message or an address is wrong.
    DATAERR = 65
    #: A named file cannot be read.
    NOINPUT = 66
    #: The server has none of the recipients.
    NOUSER = 67
    #: The server's name cannot be found.
    NOHOST = 68
    #: The server refused permanently, lacks an extension, or has the message for some recipients.
    UNAVAILABLE = 69
    #: A fault of this program.
    SOFTWARE = 70
    #: A file cannot be created.
    CANTCREAT = 73
    #: The message cannot be read to its end, or the result cannot be written.
    IOERR = 74
    #: The same command may be tried again later, and no recipient gets a second copy.
    TEMPFAIL = 75
    #: The connection was lost in doubt, or the server broke the protocol.
    PROTOCOL = 76
    #: The client or the server could not authenticate itself.
    NOPERM = 77
    #: The server's URL or a setting cannot be used.
    CONFIG = 78
    #: Ctrl-C.
    INTERRUPTED = 130


#: The code of every result that leaves a recipient in doubt. No mailer that runs commands (the
#: pipe transports of Postfix and Exim, sendmail, qmail-local) tries again after 76; some do after 69.
IN_DOUBT = ExitStatus.PROTOCOL

_CLASSES: dict[ExitStatus, str] = {
    ExitStatus.USAGE: "InvalidInput",
    ExitStatus.DATAERR: """
        InvalidAddress InvalidMessage MessageTooLarge TooManyHops MessageDamaged InvalidExport
        UnsignableMessage""",
    ExitStatus.UNAVAILABLE: """
        Refused PermanentFailure AllRecipientsRefused ExtensionUnavailable TLSError
        StartTLSUnavailable DANEUnavailable CannotListen""",
    ExitStatus.SOFTWARE: "SendmailError CommandNotAllowed",
    ExitStatus.TEMPFAIL: """
        ConnectionFailed ConnectFailed ConnectionClosed ServiceClosing SendTimeout TLSClosed
        TemporaryFailure MailboxUnavailable ErrorProcessing ActionIgnored
        UnableToAccommodateParameters TemporaryAuthenticationFailure CredentialsUnavailable
        MailerBusy MailerClosed SigningUnavailable DeliveryCancelled DeliveryWithdrawn
        Cancelled TokenEndpointUnavailable RefreshTokenMissing QueueError QueueFull QueueBusy
        CommitUnknown""",
    ExitStatus.PROTOCOL: """
        DeliveryInDoubt LeaseLost ProtocolBreach UnexpectedResponse ChunkingFailure InvalidBase64 TLSFailure TLSAlert""",
    ExitStatus.NOPERM: """
        AuthenticationError AuthenticationFailed AuthenticationRejected AuthenticationRequired
        EncryptionRequired UnsupportedMechanism WeakMechanism ServerNotAuthentic
        CertificateRejected GrantRefused""",
    ExitStatus.CONFIG: "InvalidServer ConfigurationError QueueUnusable QueueMissing",
}
#: The code of each class of error, by the name of the class.
STATUS_BY_ERROR: Mapping[str, ExitStatus] = MappingProxyType(
    {name: status for status, names in _CLASSES.items() for name in names.split()}
)

# A temporary error of a class with one of these codes gets 75.
_PERMANENT = frozenset({ExitStatus.UNAVAILABLE, ExitStatus.NOPERM})


class CommandError(Exception):
    """A mistake for which the package has no error class: one line of text and a code."""

    def __init__(self, text: str, status: ExitStatus = ExitStatus.USAGE) -> None:
        super().__init__(text)
        self.status = status


def status_and_line(error: BaseException) -> tuple[int, str]:
    """Return the exit status and the line on stderr for an exception that ends a command.

    Prints a traceback too if :data:`DEBUG_VARIABLE` is set and *error* is a fault of this program.
    """
    if isinstance(error, CommandError):
        return error.status, str(error)
    if isinstance(error, SendmailError):
        return status_of_error(error), str(error)
    if isinstance(error, KeyboardInterrupt):
        return ExitStatus.INTERRUPTED, "interrupted"
    if os.environ.get(DEBUG_VARIABLE):
        import traceback

        traceback.print_exception(error)
    # The text of an unexpected error may hold a secret.
    return ExitStatus.SOFTWARE, (
        f"a fault of this program: {type(error).__name__}; "
        f"set {DEBUG_VARIABLE}=1 to see where, and please report it"
    )


def status_of_error(error: SendmailError) -> ExitStatus:
    """Return the exit status for an error."""
    if error.in_doubt:
        return IN_DOUBT
    if "DNSLookupError" in _class_names(error.__cause__):
        return ExitStatus.NOHOST
    names = [name for name in _class_names(error) if name in STATUS_BY_ERROR]
    if "AllRecipientsRefused" in names:
        # The error has two base classes: this one, and that of the refusal, which is more exact.
        if error.phase == "RCPT" and error.report is not None and not error.transient:
            worst = _worst(error.report.refused)
            if worst is ExitStatus.NOUSER:
                return worst
        names = [name for name in names if name != "AllRecipientsRefused"]
    status = STATUS_BY_ERROR[names[0]]
    if _is_away(error, names) or (error.transient and status in _PERMANENT):
        return ExitStatus.TEMPFAIL
    return _not_again(status) if error.report is not None and error.report.accepted else status


def status_of_result(report: DeliveryReport | None, error: SendmailError | None) -> ExitStatus:
    """Return the exit status of a delivery: that of the error, or else of the worst refusal.

    A permanent refusal is worse than a temporary one: a person has to look at it. Once any
    recipient has the message, or may have it, the code is not 75.
    """
    if error is not None:
        return status_of_error(error)
    if report is None or not report.refused:
        return ExitStatus.OK
    worst = _worst(report.refused)
    return _not_again(worst) if report.accepted else worst


def status_of_start(error: SendmailError) -> ExitStatus:
    """Return the exit status of a relay that cannot start.

    An endpoint in use may be free at the next start, and a database that does not answer may be there. A
    queue that another relay uses is a mistake in the configuration, and 78 keeps systemd from restarting
    the relay.
    """
    names = _class_names(error)
    if _is_away(error, names):
        return ExitStatus.TEMPFAIL
    in_use = "CannotListen" in names
    return STATUS_BY_ERROR["CannotListen"] if in_use else ExitStatus.CONFIG


def status_of_signal(status: int, signum: int | None) -> int:
    """Return the exit status of a command that a signal interrupted: 128 + signal, or 0."""
    return 128 + signum if signum is not None and status else status


def _is_away(error: SendmailError, names: list[str]) -> bool:
    """Return whether the queue cannot be opened now, but may be later: its database does not answer."""
    return "QueueUnusable" in names and getattr(error, "temporary", False)


def _class_names(error: BaseException | None) -> list[str]:
    return [kind.__name__ for kind in type(error).__mro__]


def _not_again(status: ExitStatus) -> ExitStatus:
    """Return the exit status where some recipients have the message: after 75 they would get it again."""
    return ExitStatus.UNAVAILABLE if status is ExitStatus.TEMPFAIL else status


def _worst(refused: tuple[RecipientResult, ...]) -> ExitStatus:
    codes = {result.reply.code for result in refused if result.reply and not result.transient}
    if not codes:
        return ExitStatus.TEMPFAIL
    return ExitStatus.NOUSER if codes == {550} else ExitStatus.UNAVAILABLE
