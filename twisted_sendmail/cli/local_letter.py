"""A local program's message made fit to be sent: who sends it, who gets it, what it lacks.

Who runs the program is the sender unless said otherwise; a name without a domain gets
that of the relay, whose rules then say what becomes of it.  ``Date``, ``Message-ID`` and
``From`` are added where they are missing, before anybody has the message: should it go
out twice, both copies have one Message-ID.

RFC 5322 section 3.6, RFC 6409 section 8.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from datetime import datetime

from twisted_sendmail.cli.sendmail_options import Invocation
from twisted_sendmail.message import (
    DAEMON,
    Header,
    completed,
    from_field,
    mailboxes,
    recipients_of,
)
from twisted_sendmail.smtp import (
    Envelope,
    ForwardPath,
    InvalidAddress,
    InvalidMessage,
    Mailbox,
    Recipient,
    ReversePath,
)


@dataclass(frozen=True)
class Caller:
    """Who runs this program."""

    uid: int
    #: The login name.
    name: str
    #: The full name, if it is known.
    full_name: str


def caller() -> Caller:
    """As the system knows him; in a container without a name, as the environment says."""
    uid = os.getuid()
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        name = os.environ.get("LOGNAME") or os.environ.get("USER") or f"uid{uid}"
        return Caller(uid, name, os.environ.get("NAME", ""))
    full_name = entry.pw_gecos.partition(",")[0].replace("&", entry.pw_name.capitalize())
    return Caller(uid, entry.pw_name, os.environ.get("NAME") or full_name)


def sender_of(asked: Invocation, who: Caller, domain: str) -> ReversePath:
    """The reverse-path.

    :raises InvalidAddress: what ``-f`` gives is no address, or several.
    """
    given = who.name if asked.sender is None else asked.sender.strip()
    if given in {"", "<>"}:
        return ReversePath()
    boxes = mailboxes("-f", given, domain)
    if len(boxes) != 1:
        raise InvalidAddress(f"-f names {len(boxes)} senders", remedy="give one address")
    return ReversePath(boxes[0])


def envelope_of(asked: Invocation, header: Header, sender: ReversePath, domain: str) -> Envelope:
    """Who gets it: those named in words, and with ``-t`` those in the header too.

    :raises InvalidInput: an address cannot be used, or there is none.
    """
    paths = [
        ForwardPath(box)
        for word in asked.recipients
        for box in mailboxes("the command line", word, domain)
    ]
    if asked.from_header:
        paths += recipients_of(header, domain)
    if not paths:
        raise InvalidMessage("there are no recipients in the header", remedy="add To, Cc or Bcc")
    recipients = [Recipient(path, asked.notify) for path in paths]
    return Envelope(sender, recipients, ret=asked.ret, envid=asked.envid)


def finished(
    header: Header, sender: ReversePath, full_name: str, now: datetime, domain: str
) -> Header:
    """*header* with what every message must have, and without blind copies."""
    if "from" not in header:
        box = sender.mailbox
        who = from_field(Mailbox(DAEMON, domain)) if box is None else from_field(box, full_name)
        header = Header((*header.fields, who))
    return completed(header, now, _id_domain(sender, domain))


def _id_domain(sender: ReversePath, domain: str) -> str:
    box = sender.mailbox
    return domain if box is None or box.domain.startswith("[") else box.ascii_domain
