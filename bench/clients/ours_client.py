"""twisted_sendmail: ``Mailer.send_many``, ``Mailer.send`` or ``submit``.

  --api many     one ``send_many`` over all messages (mode reuse; the default)
  --api send     one ``await mailer.send()`` after the other, --workers of them at once
  --full         mode fresh: a full TLS handshake each time
  --window N     messages in doubt at once on a connection (default: the mailer's own)
  --pipeline-after-data  with DATA: the next envelope right after the final dot

Mode fresh is one ``submit()`` after the other: a connection of its own for each message.
"""

import pathlib

import common


def extra(p):
    p.add_argument("--api", choices=["many", "send"], default="many")
    p.add_argument("--workers", type=int, default=8)
    p.add_argument("--window", type=int)
    p.add_argument("--pipeline-after-data", action="store_true")
    p.add_argument("--full", action="store_true")


a = common.parse(extra=extra)

from twisted.internet import defer, reactor  # noqa: E402
from twisted_common import openssl_version  # noqa: E402

from twisted_sendmail import (  # noqa: E402
    Credentials,
    Envelope,
    Mailer,
    PoolLimits,
    SubmissionServer,
    TLSPolicy,
    TLSTrust,
    submit,
)
from twisted_sendmail.client.tls import TLS_SESSIONS  # noqa: E402

big = a.size and a.size > 1 << 20
body = pathlib.Path(a.message) if big else common.read(a.message)
server = SubmissionServer(
    a.host,
    a.port,
    TLSPolicy.STARTTLS if a.tls == "starttls" else TLSPolicy.NONE,
    trust=TLSTrust(ca_file=a.cafile),
    credentials=Credentials(common.USER, common.PASSWORD) if a.auth else None,
    helo_name=common.HELO,
    ignore_extensions=() if a.chunking else ("CHUNKING",),
)
limits = {
    "connections": a.connections,
    "messages": 1_000_000,
    "pipeline_after_data": a.pipeline_after_data,
}
if a.window:
    limits["window"] = a.window
todo = common.Counter(a.messages)
done = 0
errors = []


def note(report):
    """Count the message if all recipients were accepted."""
    global done
    if len(report.accepted) == a.recipients:
        done += 1
    else:
        errors.append(repr(report.error or report.reply))


def messages():
    """Make a separate envelope for each message, as an application does."""
    while todo.take():
        yield Envelope(common.SENDER, a.rcpts), body


async def fresh():
    while todo.take():
        if a.full:
            TLS_SESSIONS.clear()
        note(
            await submit(
                reactor, server, body, sender=common.SENDER, recipients=a.rcpts, complete=False
            )
        )


async def one_at_a_time(mailer):
    for envelope, message in messages():
        note(await mailer.send(message, envelope=envelope, complete=False))


async def reuse():
    mailer = Mailer(reactor, server, limits=PoolLimits(**limits))
    if a.barrier:
        await mailer.connect(a.connections)
    if a.api == "send":
        await together([one_at_a_time(mailer) for _ in range(a.workers)])
    else:
        async for _place, report in mailer.send_many(messages(), complete=False):
            note(report)
    await mailer.aclose()


def together(coroutines):
    return defer.gatherResults(
        [defer.Deferred.fromCoroutine(c) for c in coroutines], consumeErrors=True
    )


async def main():
    try:
        if a.mode == "fresh":
            await together([fresh() for _ in range(a.connections)])
        else:
            await reuse()
    except Exception as e:
        errors.append(repr(e))
    reactor.stop()


clock = common.Clock()
reactor.callWhenRunning(lambda: defer.Deferred.fromCoroutine(main()))
common.profile_if_asked(reactor.run)
clock.report(done, tls=openssl_version(), errors=errors[:3])
