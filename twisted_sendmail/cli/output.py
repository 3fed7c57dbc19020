"""Output of every command: results on stdout, everything else on stderr, and the JSON of a delivery.

Text from servers and messages is escaped by the caller; error lines are escaped here once more,
because they may quote the command line. A reader that closes its pipe (``| head``) is not an
error. A full disk is one: it is reported once, and the command ends with 74 (``EX_IOERR``).
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from twisted_sendmail.exit_status import ExitStatus
from twisted_sendmail.smtp import (
    ConnectionFailed,
    DeliveryCancelled,
    SendmailError,
    SendTimeout,
    printable,
)

if TYPE_CHECKING:
    from twisted_sendmail.smtp import DeliveryReport, RecipientResult, Reply, TLSFacts

NAME = "twisted-sendmail"
#: How error lines begin: the name of the program.
_prefix = [NAME]
#: The errors that lost a result.
_lost: list[OSError] = []


def prepare_streams(name: str = NAME) -> None:
    """Escape what the terminal's encoding lacks; *name* begins every line of :func:`print_error`."""
    _prefix[:] = [name]
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def print_result(text: str) -> None:
    """Write a line to stdout."""
    _write(sys.stdout, text)


def print_note(text: str) -> None:
    """Write a line to stderr, without the program's name."""
    _write(sys.stderr, text)


def print_error(text: str) -> None:
    """Write a line to stderr that begins with the program's name."""
    print_note(f"{_prefix[0]}: {printable(text, limit=2048)}")


def terminal_width() -> int | None:
    """Return the columns of the terminal that shows stdout; None without a terminal."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    import shutil

    return shutil.get_terminal_size().columns


def finish(status: int) -> int:
    """Flush stdout and stderr; the exit status, which is 74 if only the output failed."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            try:
                stream.flush()
            except OSError as e:
                output_failed(stream, e)
    lost, _lost[:] = bool(_lost), []
    return ExitStatus.IOERR if lost and not status else status


def output_failed(stream: TextIO, error: OSError) -> None:
    """Report that *stream* cannot be written, and discard what is written to it from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, stream.fileno())
    finally:
        os.close(nowhere)
    # Nothing can be reported if stderr itself fails.
    if stream is sys.stdout and not isinstance(error, BrokenPipeError):
        _lost.append(error)
        print_error(f"the result could not be written: {error.strerror or type(error).__name__}")


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:  # the program was started with the stream closed
        return
    try:
        stream.write(text + "\n")
        stream.flush()
    except OSError as e:
        output_failed(stream, e)


# -- the result of a delivery, for people -----------------------------------------


def accepted_line(report: DeliveryReport) -> str:
    """Return one line about a message that was accepted for at least one recipient."""
    accepted, all_ = len(report.accepted), len(report.outcomes)
    number = str(all_) if accepted == all_ else f"{accepted} of {all_}"
    queue_id = f" as {printable(report.queue_id, 100)}" if report.queue_id else ""
    noun = "recipient" if all_ == 1 else "recipients"
    return f"accepted by {report.host}{queue_id} for {number} {noun}"


def error_lines(report: DeliveryReport | None, error: SendmailError | None) -> list[str]:
    """Return the lines for stderr: first about the message, then about single recipients."""
    lines: list[str] = []
    if error is not None:
        lines.append(str(error) + _nothing_delivered(report, error))
    if report is None:
        return lines
    if report.accepted and report.refused:
        lines.append(
            f"{len(report.refused)} of {len(report.outcomes)} recipients refused; "
            "the others have the message: send it again to those refused only"
        )
    alone = error is not None and len(report.outcomes) == 1
    if not alone and (report.accepted or report.phase is None or report.in_doubt):
        lines += [str(result) for result in (*report.refused, *report.in_doubt)]
    if report.long_line is not None and report.accepted:
        lines.append(
            f"line {report.long_line} of the message is longer than the 998 octets of SMTP: "
            "a server may change it"
        )
    if report.signature_broken and report.accepted:
        lines.append(
            "signature broken: the message was encoded for a server without 8BITMIME or SMTPUTF8"
        )
    return lines


def _nothing_delivered(report: DeliveryReport | None, error: SendmailError) -> str:
    """Return the end of a line whose error does not state that no recipient has the message."""
    if error.in_doubt or not isinstance(error, (DeliveryCancelled, SendTimeout, ConnectionFailed)):
        return ""
    if report is not None and len(report.untouched) != len(report.outcomes):
        return ""
    return "; nothing was delivered"


# -- the result of a delivery, as JSON ----------------------------------------------


def as_json(value: dict[str, Any]) -> str:
    """Return *value* in one line of ASCII, which holds no control characters."""
    return json.dumps(value, ensure_ascii=True)


def result_json(
    report: DeliveryReport | None, error: Exception | None, status: int
) -> dict[str, Any]:
    """Return the object of ``send --json``; ``docs/reference/command-line.md`` describes each name."""
    outcomes = report.outcomes if report is not None else ()
    source = report if report is not None else error
    return {
        "status": _status_word(report),
        "exit_status": int(status),
        "recipients": [_recipient_json(each) for each in outcomes],
        "sender": str(report.envelope.sender) if report and report.envelope else None,
        "queue_id": report.queue_id if report else None,
        "message_id": report.message_id if report else None,
        "size": report.size if report else None,
        "host": getattr(source, "host", None),
        "tls": tls_json(getattr(source, "tls", None)),
        "reply": _reply_json(report.reply) if report and report.reply else None,
        "error": None if error is None else error_json(error),
    }


def _status_word(report: DeliveryReport | None) -> str:
    if report is None or not report.outcomes:
        return "failed"
    if report.in_doubt:
        return "in doubt"
    if len(report.accepted) == len(report.outcomes):
        return "accepted"
    if report.accepted:
        return "partly accepted"
    return "refused" if report.refused else "failed"


def _recipient_json(result: RecipientResult) -> dict[str, Any]:
    return {
        "address": str(result.recipient),
        "status": result.status.value,
        "transient": result.transient,
        **_reply_json(result.reply),
    }


def _reply_json(reply: Reply | None) -> dict[str, Any]:
    return {
        "code": reply.code if reply else None,
        "enhanced": str(reply.enhanced) if reply and reply.enhanced else None,
        "text": reply.text if reply else None,
    }


def error_json(error: Exception) -> dict[str, Any]:
    """Return the class, the line, the phase and the reply of *error*."""
    reply = getattr(error, "reply", None)
    return {
        "class": type(error).__name__,
        "text": printable(str(error)) if not isinstance(error, SendmailError) else str(error),
        "transient": getattr(error, "transient", False),
        "in_doubt": getattr(error, "in_doubt", False),
        "phase": getattr(error, "phase", None),
        "reply": _reply_json(reply) if reply else None,
    }


def tls_json(tls: TLSFacts | None) -> dict[str, Any] | None:
    """Return the facts of a TLS session."""
    if tls is None:
        return None
    # Not for the sendmail command, which has to start fast.
    from dataclasses import asdict
    from datetime import datetime

    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in asdict(tls).items()
    }
