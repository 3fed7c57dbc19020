"""``sendmail`` where no relay is installed: submit the message by the default account, and wait for the result.

Nothing is queued: the exit status is that of ``twisted-sendmail send``. Mail for users of this machine
goes to the address that the account has for it, and never to a user of that name elsewhere.
"""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError

from twisted_sendmail.cli.options import server_of_account
from twisted_sendmail.cli.output import accepted_line, error_lines, print_error, print_note
from twisted_sendmail.cli.react import react
from twisted_sendmail.cli.sendmail.message import InputMessage, envelope_of, envelope_sender
from twisted_sendmail.client import host_name, submit
from twisted_sendmail.exit_status import CommandError, ExitStatus, status_of_result
from twisted_sendmail.message import HeaderFixer, Qualification, mailboxes
from twisted_sendmail.off_reactor import off_reactor
from twisted_sendmail.smtp import (
    Envelope,
    Mailbox,
    Recipient,
    ReversePath,
    SendmailError,
    UnusableRecipient,
    printable,
    refused_address,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from twisted_sendmail.accounts import Account
    from twisted_sendmail.cli.sendmail.message import User
    from twisted_sendmail.cli.sendmail.options import SendmailOptions
    from twisted_sendmail.smtp import DeliveryReport

#: The domain of users of this machine.
_LOCAL = "localhost"


def submit_by(account: Account, options: SendmailOptions, user: User, message: InputMessage) -> int:
    """Submit *message*; the exit status.

    :raises CommandError: the account lacks something, or the password cannot be read.
    :raises InvalidInput: an address, or a value of the account, cannot be used.
    """
    own = _own_address(account)
    sender = ReversePath(own)
    if options.sender is not None:
        sender = envelope_sender(options, user, own.ascii_domain)
    unusable: list[UnusableRecipient] = []
    envelope = envelope_of(options, message.header, sender, _LOCAL, unusable)
    envelope = _with_local_mail(envelope, account)
    fixer = HeaderFixer(
        time.time(),
        own.ascii_domain,
        sender if sender.mailbox else ReversePath(own),
        from_name=user.full_name if options.full_name is None else options.full_name,
        qualification=Qualification(own.ascii_domain, host_name()),
    )
    server = server_of_account(account)
    gc.enable()  # a submission may be long

    async def work(reactor: Any) -> int:
        report: DeliveryReport | None = None
        error: SendmailError | None = None
        content = _content(reactor, message, fixer)
        try:
            report = await submit(reactor, server, content, envelope=envelope, complete=False)
        except SendmailError as e:
            report, error = e.report, e
        except CancelledError:
            raise CommandError("interrupted; nothing was sent", ExitStatus.TEMPFAIL) from None
        for line in error_lines(report, error):
            print_error(line)
        if options.verbose and report is not None and report.accepted:
            print_note(f"-- {accepted_line(report)}")
        return status_of_result(report, error)

    status = react(work)
    for address in dict.fromkeys(unusable):
        print_error(str(refused_address(address)))
    return status or (ExitStatus.UNAVAILABLE if unusable else ExitStatus.OK)


async def _content(reactor: Any, message: InputMessage, fixer: HeaderFixer) -> AsyncIterator[bytes]:
    """Yield the content, with its header completed; once."""
    pieces = message.pieces()
    while (piece := await off_reactor(reactor, lambda: next(pieces, None))) is not None:
        octets = fixer.feed(piece)
        if octets:
            yield octets
    yield fixer.finish()


def _own_address(account: Account) -> Mailbox:
    found = [] if account.from_ is None else mailboxes("from", account.from_)
    if len(found) == 1:
        return found[0]
    raise CommandError(
        f"{printable(account.file, 300)}: account.{printable(account.name, 40)}.from is missing, or "
        "no single address; write the address of the sender",
        ExitStatus.CONFIG,
    )


def _with_local_mail(envelope: Envelope, account: Account) -> Envelope:
    """Return *envelope* with mail for users of this machine going to the address of the account.

    :raises CommandError: the account has none.
    """
    recipients: list[Recipient] = []
    for each in envelope.recipients:
        mailbox = each.path.mailbox
        if mailbox is not None and mailbox.domain.lower() != _LOCAL:
            recipients.append(each)
        elif account.local_mail_to is None:
            name = "postmaster" if mailbox is None else mailbox.local_part
            raise CommandError(
                f"there is no address for {printable(name, 80)}, a user of this machine; write "
                f"local-mail-to into account.{printable(account.name, 40)} in "
                f"{printable(account.file, 300)}",
                ExitStatus.CONFIG,
            )
        else:
            recipients.append(Recipient(account.local_mail_to, each.notify, each.orcpt))
    return Envelope(envelope.sender, recipients, ret=envelope.ret, envid=envelope.envid)
