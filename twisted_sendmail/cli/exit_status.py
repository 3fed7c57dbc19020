"""What the command's exit status says: the codes of ``sysexits.h``.

One table: class of error to code.  A class that is not in it has its base's.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

from twisted.internet.error import DNSLookupError

from twisted_sendmail.client import Cancelled
from twisted_sendmail.daemon.configuration_error import ConfigurationError
from twisted_sendmail.queue import (
    MessageDamaged,
    QueueBusy,
    QueueError,
    QueueFull,
    QueueUnusable,
    TooManyHops,
)
from twisted_sendmail.sasl import CredentialsUnavailable
from twisted_sendmail.smtp import DeliveryReport, RecipientResult, SendmailError, errors


class ExitStatus(enum.IntEnum):
    """The codes in use."""

    #: Done.
    OK = 0
    #: The command line is wrong.
    USAGE = 64
    #: The message or an address is.
    DATAERR = 65
    #: A file that was named cannot be read.
    NOINPUT = 66
    #: The server knows none of the recipients.
    NOUSER = 67
    #: The server's name cannot be found.
    NOHOST = 68
    #: The server refused for good, lacks what is needed, or has the message for some already.
    UNAVAILABLE = 69
    #: A fault of this program.
    SOFTWARE = 70
    #: A file could not be made.
    CANTCREAT = 73
    #: Reading the message failed on the way, or writing the result.
    IOERR = 74
    #: Not now: all of the same may be tried again, and nobody gets a second copy.
    TEMPFAIL = 75
    #: The exchange with the server broke off or broke the protocol; in doubt, too.
    PROTOCOL = 76
    #: We, or the server, could not prove to be who we are.
    NOPERM = 77
    #: The server's URL or a setting cannot be used.
    CONFIG = 78
    #: Ctrl-C.
    INTERRUPTED = 130


#: The code of every result that leaves anybody in doubt.  No mailer (the pipe of Postfix and of
#: Exim, sendmail, qmail-local) runs a command again that ended with it, as some do with 69.
IN_DOUBT = ExitStatus.PROTOCOL

#: The code of each class of error.
TABLE: Mapping[type[SendmailError], ExitStatus] = MappingProxyType(
    {
        SendmailError: ExitStatus.SOFTWARE,
        errors.InvalidInput: ExitStatus.USAGE,
        errors.InvalidAddress: ExitStatus.DATAERR,
        errors.InvalidMessage: ExitStatus.DATAERR,
        errors.MessageTooLarge: ExitStatus.DATAERR,
        errors.InvalidServer: ExitStatus.CONFIG,
        errors.CommandNotAllowed: ExitStatus.SOFTWARE,
        errors.ConnectionFailed: ExitStatus.TEMPFAIL,
        errors.ConnectFailed: ExitStatus.TEMPFAIL,
        errors.ConnectionClosed: ExitStatus.TEMPFAIL,
        errors.ServiceClosing: ExitStatus.TEMPFAIL,
        errors.SendTimeout: ExitStatus.TEMPFAIL,
        errors.DeliveryCancelled: ExitStatus.TEMPFAIL,
        Cancelled: ExitStatus.TEMPFAIL,
        errors.DeliveryInDoubt: IN_DOUBT,
        errors.MailerBusy: ExitStatus.TEMPFAIL,
        errors.MailerClosed: ExitStatus.TEMPFAIL,
        errors.ProtocolBreach: ExitStatus.PROTOCOL,
        errors.UnexpectedResponse: ExitStatus.PROTOCOL,
        errors.InvalidBase64: ExitStatus.PROTOCOL,
        errors.TLSError: ExitStatus.UNAVAILABLE,
        errors.StartTLSUnavailable: ExitStatus.UNAVAILABLE,
        errors.TLSFailure: ExitStatus.PROTOCOL,
        errors.TLSAlert: ExitStatus.PROTOCOL,
        errors.CertificateRejected: ExitStatus.NOPERM,
        errors.TLSClosed: ExitStatus.TEMPFAIL,
        errors.AuthenticationError: ExitStatus.NOPERM,
        errors.UnsupportedMechanism: ExitStatus.NOPERM,
        errors.EncryptionRequired: ExitStatus.NOPERM,
        errors.WeakMechanism: ExitStatus.NOPERM,
        errors.AuthenticationRejected: ExitStatus.NOPERM,
        errors.AuthenticationFailed: ExitStatus.NOPERM,
        errors.AuthenticationRequired: ExitStatus.NOPERM,
        errors.ServerNotAuthentic: ExitStatus.NOPERM,
        errors.TemporaryAuthenticationFailure: ExitStatus.TEMPFAIL,
        CredentialsUnavailable: ExitStatus.TEMPFAIL,
        errors.ExtensionUnavailable: ExitStatus.UNAVAILABLE,
        errors.Refused: ExitStatus.UNAVAILABLE,
        errors.TemporaryFailure: ExitStatus.TEMPFAIL,
        errors.MailboxUnavailable: ExitStatus.TEMPFAIL,
        errors.ErrorProcessing: ExitStatus.TEMPFAIL,
        errors.ActionIgnored: ExitStatus.TEMPFAIL,
        errors.UnableToAccommodateParameters: ExitStatus.TEMPFAIL,
        errors.PermanentFailure: ExitStatus.UNAVAILABLE,
        errors.AllRecipientsRefused: ExitStatus.UNAVAILABLE,
        TooManyHops: ExitStatus.DATAERR,
        QueueError: ExitStatus.TEMPFAIL,
        QueueFull: ExitStatus.TEMPFAIL,
        QueueUnusable: ExitStatus.CONFIG,
        QueueBusy: ExitStatus.TEMPFAIL,
        MessageDamaged: ExitStatus.DATAERR,
        ConfigurationError: ExitStatus.CONFIG,
    }
)

# A refusal that may not last is none for good.
_FOR_GOOD = frozenset({ExitStatus.UNAVAILABLE, ExitStatus.NOPERM})


class Complaint(Exception):
    """Something is wrong that the package has no error for: one line, and a code."""

    def __init__(self, text: str, status: ExitStatus = ExitStatus.USAGE) -> None:
        super().__init__(text)
        self.status = status


def status_of_error(error: SendmailError) -> ExitStatus:
    """The code of an error."""
    if error.in_doubt:
        return IN_DOUBT
    if isinstance(error.__cause__, DNSLookupError):
        return ExitStatus.NOHOST
    if isinstance(error, errors.AllRecipientsRefused):
        # It is of two classes: this one, and that of the refusal, which tells more.
        if error.phase == "RCPT" and error.report is not None and not error.transient:
            worst = _worst(error.report.refused)
            if worst is ExitStatus.NOUSER:
                return worst
        kinds = [
            k for k in type(error).__mro__ if k in TABLE and k is not errors.AllRecipientsRefused
        ]
    else:
        kinds = [k for k in type(error).__mro__ if k in TABLE]
    status = TABLE[kinds[0]]
    if error.transient and status in _FOR_GOOD:
        return ExitStatus.TEMPFAIL
    return _not_again(status) if error.report is not None and error.report.accepted else status


def status_of(report: DeliveryReport | None, error: SendmailError | None) -> ExitStatus:
    """The code of a result: that of the error, or else of the worst outcome.

    Refused for good is worse than refused for now: it takes somebody to look at it.  Once
    anybody has the message, or may have it, no code asks for another try.
    """
    if error is not None:
        return status_of_error(error)
    if report is None or not report.refused:
        return ExitStatus.OK
    worst = _worst(report.refused)
    return _not_again(worst) if report.accepted else worst


def _not_again(status: ExitStatus) -> ExitStatus:
    """The code where some have the message: the same command would send it to them again."""
    return ExitStatus.UNAVAILABLE if status is ExitStatus.TEMPFAIL else status


def _worst(refused: tuple[RecipientResult, ...]) -> ExitStatus:
    final = [outcome.reply.code for outcome in refused if outcome.reply and not outcome.transient]
    if not final:
        return ExitStatus.TEMPFAIL
    return ExitStatus.NOUSER if set(final) == {550} else ExitStatus.UNAVAILABLE
