"""``twisted-sendmail demo``: the whole way of mail, on the loopback interface.

A real relay is started; an application and the stand-in for ``sendmail`` hand mail to it;
the next hop is down, then knows one recipient and not the other.  What is shown is what
happened, and each of its claims is checked before it is made.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from itertools import takewhile
from typing import Any

from twisted_sendmail.cli import demo_shown as shown
from twisted_sendmail.cli.demo_stage import UNKNOWN, Stage
from twisted_sendmail.cli.exit_status import ExitStatus
from twisted_sendmail.cli.running import run
from twisted_sendmail.client import submit
from twisted_sendmail.testing.mailbox import ReceivedMessage

HELP = "run a relay between an application and a server that is down, and show all of it"

#: With everything that breaks a careless client: 8-bit text, leading dots, a lone dot,
#: no line end at the end.
MESSAGE = (
    "From: Alice <alice@example.org>\r\n"
    f"To: Bob <bob@example.net>, {UNKNOWN}\r\n"
    "Subject: A first message\r\n"
    "Date: Thu, 01 Jan 2026 12:00:00 +0000\r\n"
    "Message-ID: <demo@example.org>\r\n"
    "MIME-Version: 1.0\r\n"
    "Content-Type: text/plain; charset=utf-8\r\n"
    "Content-Transfer-Encoding: 8bit\r\n"
    "\r\n"
    "Grüße aus Zürich, 你好, здравствуйте.\r\n"
    ".a line that begins with a dot\r\n"
    ".\r\n"
    "..two dots, behind a line that is one dot\r\n"
    "\r\n"
    "The end, without a line end."
).encode()
#: As it goes over the wire.
MESSAGE_SENT = MESSAGE + b"\r\n"
#: What a script hands to sendmail: no Date, no Message-ID, bare line ends.
LETTER = b"To: carol@example.net\nSubject: The backup is done\n\n42 files.\n"


def add_options(parser: ArgumentParser) -> None:
    """Add the options of the subcommand to *parser*."""
    parser.description = (
        "Start a relay on the loopback interface, with a throw-away authority. Hand mail to it as an "
        "application does, over STARTTLS and AUTH, and as a script does, by sendmail. Its next hop is "
        "down, then refuses one recipient, then accepts. Show dialogue, queue, tries, delivery and "
        "report. Needs no network, leaves nothing behind, and takes some ten seconds."
    )


def execute(args: Namespace) -> int:
    """Run it; the exit status."""
    return run(_work)


async def _work(reactor: Any) -> int:
    async with Stage(reactor) as stage:
        await stage.start_relay()
        shown.chapter(1, "A relay", "twistd sendmail --config relay.toml")
        shown.panel("relay.toml", stage.configuration.splitlines())

        shown.chapter(2, "An application hands mail in", "the next hop is down")
        report = await submit(reactor, stage.door, MESSAGE)
        shown.dialogue(f"The dialogue with {stage.door}, secrets masked", stage.dialogue)
        shown.tls(report.tls)
        status, said = await stage.call(
            "sendmail", "-t", "-oi", "-f", "cron@example.org", stdin=LETTER
        )
        shown.command(
            "sendmail -t -oi -f cron@example.org < letter", f"exit status {status} {said}"
        )

        await stage.logged("status=deferred", 2)
        queue_status, queue = await stage.call("main", "queue", "list")
        shown.chapter(3, "The queue", "it was told 250, so it is on the disk")
        shown.command("twisted-sendmail queue list", queue)

        shown.chapter(4, "The next hop comes up", f"and knows nobody by the name of {UNKNOWN}")
        await stage.next_hop.start()
        arrived = await stage.next_hop.wait_for(3, timeout=40)
        await stage.logged("status=sent", 3)
        shown.relay_log(stage.log)

        shown.chapter(5, "What arrived")
        first, letter, bounce = (_by_recipient(arrived, who) for who in ("bob", "carol", "alice"))
        shown.panel("For Bob", first.content.decode().splitlines())
        shown.panel(
            "For Carol, as sendmail made it fit to be sent", letter.content.decode().splitlines()
        )
        shown.panel("For Alice, from the relay", _human(bounce))
        _, empty = await stage.call("main", "queue", "list")
        await stage.stop_relay()
        secrets_shown = [
            password for password in stage.passwords if password in stage.log + str(stage.dialogue)
        ]
        claims = {
            "the relay said 250, and sendmail 0": (bool(report.accepted), status) == (True, 0),
            "while the next hop was down, mail waited": queue_status == 0 and "refused" in queue,
            f"Bob has {len(MESSAGE_SENT)} octets, each as it was sent": _whole(first),
            "Carol has one letter with a Date and a Message-ID": b"\r\nMessage-ID: <"
            in letter.content,
            "Alice knows who did not get it, and why": _reports(bounce),
            "each went once": len(stage.next_hop.messages) == 3,
            "the queue is empty": "the queue is empty" in empty,
            "no password is in the dialogue or the log": not secrets_shown,
        }
    return ExitStatus.OK if shown.claims(claims) else ExitStatus.SOFTWARE


def _by_recipient(messages: list[ReceivedMessage], who: str) -> ReceivedMessage:
    (found,) = (m for m in messages if str(m.recipients[0]).startswith(f"{who}@"))
    return found


def _whole(message: ReceivedMessage) -> bool:
    """Behind the relay's own trace field stands what was sent, and nothing else."""
    trace, from_, rest = message.content.partition(b"From: Alice")
    return trace.startswith(b"Received: ") and from_ + rest == MESSAGE_SENT


def _human(bounce: ReceivedMessage) -> list[str]:
    """A report without the message it is about."""
    lines = bounce.content.decode().splitlines()
    return list(takewhile(lambda line: not ("rfc822" in line and "Content-Type" in line), lines))


def _reports(bounce: ReceivedMessage) -> bool:
    content = bounce.email
    failed = f"Final-Recipient: rfc822; {UNKNOWN}".encode()
    return (
        bounce.sender.mailbox is None
        and content.get_content_type() == "multipart/report"
        and failed in bounce.content
        and b"5.1.1" in bounce.content
    )
