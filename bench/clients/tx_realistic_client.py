"""What a real Twisted client could reach: the ceiling's transport, with the work a
usable client cannot leave out.

Per message: sender and recipients checked and formatted, line ends checked, the
content dot-stuffed (DATA) or framed (BDAT), an awaitable per message, the reply to
every command parsed (multi-line too) and kept per recipient, a refused recipient
not fatal, a deadline.  Left out: parsing of messages, retries, TLS policy, logs.

  --eager       write to the socket at once
  --tls-engine  twisted or stdlib (the ssl module's MemoryBIO, always eager)
"""

import base64
import re
import ssl
from collections import deque

import common


def extra(p):
    p.add_argument("--eager", action="store_true")
    p.add_argument("--tls-engine", default="twisted", choices=["twisted", "stdlib"])


a = common.parse(extra=extra)
if a.size and a.size > 1 << 20:
    common.unsupported("whole messages only")

from twisted.internet import defer, protocol, reactor, task  # noqa: E402
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol  # noqa: E402
from twisted_common import openssl_version, tls_options  # noqa: E402

EHLO = b"EHLO " + common.HELO.encode() + b"\r\n"
AUTH = b"AUTH PLAIN " + base64.b64encode(b"\0user\0password") + b"\r\n"
GOOD = re.compile(r"[!-~]+@[A-Za-z0-9.\-\[\]:]+\Z").match
raw = common.read(a.message)
options = tls_options(a) if a.tls_engine == "twisted" else None
ctx = (
    ssl.create_default_context(cafile=a.cafile)
    if a.tls == "starttls" and a.tls_engine == "stdlib"
    else None
)


class Reply:
    __slots__ = ("code", "text")

    def __init__(self, code, text):
        self.code, self.text = code, text


class Result:
    __slots__ = ("accepted", "refused", "reply")

    def __init__(self):
        self.accepted, self.refused, self.reply = [], [], None


class Transaction:
    __slots__ = ("chunking", "content", "deferred", "rcpts", "result", "step")

    def __init__(self, rcpts, content, chunking):
        self.rcpts, self.content, self.chunking = rcpts, content, chunking
        self.deferred = defer.Deferred()
        self.result = Result()
        self.step = 0


class Refused(Exception):
    pass


class Eager:
    def __init__(self, p):
        self.p, self.write = p, p.eager_write

    def __getattr__(self, name):
        return getattr(self.p.transport, name)


class Submission(protocol.Protocol):
    def __init__(self):
        self.ready = defer.Deferred()
        self.closed = defer.Deferred()
        self.buf = b""
        self.lines = []
        self.expect = deque()  # handlers of the replies still due
        self.exts = {}
        self.tls = None
        self.deadline = None

    # -- bytes -------------------------------------------------------------
    def connectionMade(self):
        self.transport.setTcpNoDelay(True)
        self.out = self.eager_write if a.eager or ctx else self.transport.write
        self.expect.append(self.greeting)

    def eager_write(self, data):
        t = self.transport
        if not t.dataBuffer and not t._tempDataBuffer:
            try:
                n = t.socket.send(data)
            except OSError:
                n = 0
            if n == len(data):
                return
            data = data[n:]
        t.write(data)

    def dataReceived(self, data):
        self.received(data)

    def received(self, data):
        if self.buf:
            data = self.buf + data
        lines = data.split(b"\r\n")
        self.buf = lines.pop()
        if len(self.buf) > 4096:
            return self.transport.abortConnection()
        for line in lines:
            if line[3:4] == b"-":
                self.lines.append(line[4:])
                continue
            try:
                code = int(line[:3])
            except ValueError:
                return self.transport.abortConnection()
            if self.lines:
                text = [*self.lines, line[4:]]
                self.lines = []
            else:
                text = line[4:]
            self.expect.popleft()(Reply(code, text))

    # -- session -----------------------------------------------------------
    def greeting(self, r):
        self.need(r, 2)
        self.expect.append(self.ehlo)
        self.out(EHLO)

    def ehlo(self, r):
        self.need(r, 2)
        self.exts = {l.split(b" ", 1)[0].upper(): l for l in r.text[1:]}
        if a.tls == "starttls" and not self.tls:
            self.expect.append(self.starttls)
            self.out(b"STARTTLS\r\n")
        elif a.auth:
            self.expect.append(self.authed)
            self.out(AUTH)
        else:
            self.authed(r)

    def starttls(self, r):
        self.need(r, 2)
        self.buf, self.lines = b"", []
        self.expect.append(self.ehlo)
        if ctx:
            self.rbio, self.wbio = ssl.MemoryBIO(), ssl.MemoryBIO()
            self.tls = ctx.wrap_bio(self.rbio, self.wbio, server_hostname=a.host)
            self.dataReceived = self.shake
            self.shake(b"")
        elif a.eager:
            inner = protocol.Protocol()
            inner.dataReceived = self.received
            f = protocol.Factory.forProtocol(lambda: inner)
            self.tls = TLSMemoryBIOFactory(options, True, f).buildProtocol(None)
            self.tls.makeConnection(Eager(self))
            self.dataReceived = self.tls.dataReceived
            self.out = TLSMemoryBIOProtocol.write.__get__(self.tls)
            self.out(EHLO)
        else:
            self.transport.startTLS(options)
            self.tls = True
            self.out = self.transport.write
            self.out(EHLO)

    def shake(self, data):
        self.rbio.write(data)
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return self.eager_write(self.wbio.read())
        self.out = self.tls_write
        self.dataReceived = self.tls_received
        self.out(EHLO)
        self.tls_received(b"")

    def tls_write(self, data):
        self.tls.write(data)
        self.eager_write(self.wbio.read())

    def tls_received(self, data):
        self.rbio.write(data)
        try:
            while 1:
                got = self.tls.read(65536)
                if not got:
                    return
                self.received(got)
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass

    def authed(self, r):
        self.need(r, 2)
        self.ready.callback(self)

    def need(self, r, first):
        if r.code // 100 != first:
            raise Refused(r.code, r.text)

    # -- one message ---------------------------------------------------------
    def send(self, sender, rcpts, content):
        chunking = a.chunking and b"CHUNKING" in self.exts
        if not GOOD(sender):
            return defer.fail(ValueError(sender))
        n = content.count(b"\r\n")
        if content.count(b"\n") != n or content.count(b"\r") != n:
            return defer.fail(ValueError("line ends"))
        out = [b"MAIL FROM:<%b> SIZE=%d\r\n" % (sender.encode("ascii"), len(content))]
        for r in rcpts:
            if not GOOD(r):
                return defer.fail(ValueError(r))
            out.append(b"RCPT TO:<%b>\r\n" % r.encode("ascii"))
        t = Transaction(rcpts, content, chunking)
        self.expect.append(lambda r: self.mail_reply(t, r))
        got = lambda r: self.rcpt_reply(t, r)
        self.expect.extend([got] * len(rcpts))
        if chunking:
            out.append(b"BDAT %d LAST\r\n" % len(content))
            out.append(content)
            self.expect.append(lambda r: self.final_reply(t, r))
        else:
            out.append(b"DATA\r\n")
            self.expect.append(lambda r: self.data_reply(t, r))
        self.deadline = reactor.seconds() + 300
        self.out(b"".join(out))
        return t.deferred

    def mail_reply(self, t, r):
        if r.code != 250:
            t.result.reply = r

    def rcpt_reply(self, t, r):
        rcpt = t.rcpts[t.step]
        t.step += 1
        if r.code // 100 == 2:
            t.result.accepted.append((rcpt, r))
        else:
            t.result.refused.append((rcpt, r))

    def data_reply(self, t, r):
        if r.code != 354:
            t.result.reply = r
            return t.deferred.callback(t.result)
        c = t.content
        if c[:1] == b".":
            c = b"." + c
        self.expect.append(lambda r: self.final_reply(t, r))
        self.out(c.replace(b"\r\n.", b"\r\n..") + b".\r\n")

    def final_reply(self, t, r):
        self.deadline = None
        t.result.reply = r
        t.deferred.callback(t.result)

    def quit(self):
        self.expect.append(lambda r: self.transport.loseConnection())
        self.out(b"QUIT\r\n")

    def connectionLost(self, reason):
        self.closed.callback(None)


todo = common.Counter(a.messages)
done = 0
conns = set()


def watch():
    now = reactor.seconds()
    for c in conns:
        if c.deadline is not None and c.deadline < now:
            c.transport.abortConnection()


class Factory(protocol.ClientFactory):
    noisy = False

    def __init__(self):
        self.p = Submission()

    def buildProtocol(self, addr):
        return self.p


def connect():
    f = Factory()
    reactor.connectTCP(a.host, a.port, f)
    conns.add(f.p)
    return f.p


async def one(c):
    global done
    r = await c.send(common.SENDER, a.rcpts, raw)
    if r.reply.code == 250 and len(r.accepted) == a.recipients:
        done += 1


async def worker(gate):
    if a.mode == "fresh":
        while todo.take():
            c = await connect().ready
            await one(c)
            c.quit()
            await c.closed
            conns.discard(c)
        return
    c = await connect().ready
    if a.barrier:
        await gate()
    while todo.take():
        await one(c)
    c.quit()
    await c.closed
    conns.discard(c)


async def main():
    opened, waiting = 0, []

    async def gate():
        nonlocal opened
        opened += 1
        if opened == a.connections:
            for d in waiting:
                d.callback(None)
            return
        d = defer.Deferred()
        waiting.append(d)
        await d

    task.LoopingCall(watch).start(1)
    try:
        await defer.gatherResults(
            [defer.Deferred.fromCoroutine(worker(gate)) for _ in range(a.connections)],
            consumeErrors=True,
        )
    except Exception as e:
        print(e)
    reactor.stop()


clock = common.Clock()
reactor.callWhenRunning(lambda: defer.Deferred.fromCoroutine(main()))
common.profile_if_asked(reactor.run)
clock.report(done, tls=ssl.OPENSSL_VERSION if ctx else openssl_version())
