"""A minimal queueing relay on Twisted and SQLite, to measure the limit: SMTP in, one group
commit (WAL, synchronous=FULL) per batch before the 250 replies, kept STARTTLS+AUTH connections
out, BDAT, deletion in the same group commits. Not a usable relay.

  python relay_ceiling.py --port-in P --sink P --cafile F --queue DIR [--out 4]
"""

import argparse
import base64
import os
import queue
import signal
import sqlite3
import threading
from collections import deque

from twisted.internet import protocol, reactor
from twisted.internet import ssl as tssl
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol

p = argparse.ArgumentParser()
p.add_argument("--port-in", type=int, required=True)
p.add_argument("--sink", type=int, required=True)
p.add_argument("--cafile", required=True)
p.add_argument("--queue", required=True)
p.add_argument("--out", type=int, default=4)
a = p.parse_args()
with open(a.cafile, "rb") as f:
    options = tssl.optionsForClientTLS("127.0.0.1", trustRoot=tssl.Certificate.loadPEM(f.read()))
EHLO = b"EHLO relay.bench.example\r\n"
AUTH = b"AUTH PLAIN " + base64.b64encode(b"\0user\0password") + b"\r\n"


class Store(threading.Thread):
    """Does all pending writes in one transaction; calls back after the commit."""

    def __init__(self, path):
        threading.Thread.__init__(self, daemon=True)
        self.path, self.ops = path, queue.SimpleQueue()

    def run(self):
        db = sqlite3.connect(self.path, isolation_level=None)
        db.execute("pragma journal_mode=wal")
        db.execute("pragma synchronous=full")
        db.execute(
            "create table if not exists m(id integer primary key, sender text, rcpts text, body blob)"
        )
        top = db.execute("select coalesce(max(id), 0) from m").fetchone()[0]
        old = db.execute("select id, sender, rcpts, body from m").fetchall()
        reactor.callFromThread(
            lambda: out.extend([(i, s.encode(), r.encode().split(), b) for i, s, r, b in old])
        )
        get, empty = self.ops.get, self.ops.empty
        while True:
            batch = [get()]
            while not empty() and len(batch) < 1000:
                batch.append(get())
            ins, dele, calls = [], [], []
            for op in batch:
                if op[0] is None:
                    top += 1
                    ins.append((top, op[1].decode(), b" ".join(op[2]).decode(), op[3]))
                    calls.append((op[4], (top, op[1], op[2], op[3])))
                else:
                    dele.append((op[0],))
            db.execute("begin immediate")
            if ins:
                db.executemany("insert into m values(?,?,?,?)", ins)
            if dele:
                db.executemany("delete from m where id=?", dele)
            db.execute("commit")
            if calls:
                reactor.callFromThread(self.committed, calls)

    @staticmethod
    def committed(calls):
        for done, m in calls:
            done(m)


class Ingress(protocol.Protocol):
    buf, data, sender, rcpts = b"", False, None, ()

    def connectionMade(self):
        self.transport.setTcpNoDelay(True)
        self.transport.write(b"220 relay.bench.example ESMTP\r\n")

    def dataReceived(self, d):
        buf = self.buf + d if self.buf else d
        out = []
        while buf:
            if self.data:
                i = 1 if buf.startswith(b".\r\n") else buf.find(b"\r\n.\r\n") + 3
                if i == 2:
                    break
                body, buf = buf[: i - 1], buf[i + 2 :]
                if b"\n." in body or body[:1] == b".":
                    body = body.replace(b"\r\n.", b"\r\n")
                self.data = False
                store.ops.put((None, self.sender, self.rcpts, body, self.stored))
                continue
            line, nl, rest = buf.partition(b"\r\n")
            if not nl:
                break
            buf = rest
            v = line[:4].upper()
            if v == b"MAIL":
                self.sender, self.rcpts = line[line.index(b"<") + 1 : line.index(b">")], []
                out.append(b"250 2.1.0 Ok\r\n")
            elif v == b"RCPT":
                self.rcpts.append(line[line.index(b"<") + 1 : line.index(b">")])
                out.append(b"250 2.1.5 Ok\r\n")
            elif v == b"DATA":
                self.data = True
                out.append(b"354 go on\r\n")
            elif v == b"EHLO":
                out.append(b"250-relay.bench.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
            elif v == b"QUIT":
                out.append(b"221 bye\r\n")
                self.transport.write(b"".join(out))
                return self.transport.loseConnection()
            else:
                out.append(b"250 Ok\r\n")
        self.buf = buf
        if out:
            self.transport.write(b"".join(out))

    def stored(self, m):
        self.transport.write(b"250 2.0.0 Ok: queued\r\n")
        out.extend([m])


class Eager:
    def __init__(self, p):
        self.p, self.write = p, p.eager

    def __getattr__(self, name):
        return getattr(self.p.transport, name)


class Out(protocol.Protocol):
    buf, phase, tls, m, need, seen = b"", "greet", None, None, 0, 0

    def connectionMade(self):
        self.transport.setTcpNoDelay(True)
        self.send = self.eager

    def eager(self, data):
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

    def dataReceived(self, d):
        self.received(d)

    def received(self, d):
        lines = (self.buf + d).split(b"\r\n")
        self.buf = lines.pop()
        for line in lines:
            if line[3:4] != b"-":
                self.reply(line)

    def reply(self, line):
        if line[0] > 51:
            return self.transport.abortConnection()
        if self.phase == "ready":
            self.seen += 1
            if self.seen == self.need:
                store.ops.put((self.m[0],))
                self.m = None
                out.idle.append(self)
                out.pump()
        elif self.phase == "greet":
            self.phase = "ehlo"
            self.send(EHLO)
        elif self.phase == "ehlo" and not self.tls:
            self.phase = "tls"
            self.send(b"STARTTLS\r\n")
        elif self.phase == "tls":
            self.phase = "ehlo"
            inner = protocol.Protocol()
            inner.dataReceived = self.received
            f = protocol.Factory.forProtocol(lambda: inner)
            self.tls = TLSMemoryBIOFactory(options, True, f).buildProtocol(None)
            self.tls.makeConnection(Eager(self))
            self.dataReceived = self.tls.dataReceived
            self.send = TLSMemoryBIOProtocol.write.__get__(self.tls)
            self.send(EHLO)
        elif self.phase == "ehlo":
            self.phase = "auth"
            self.send(AUTH)
        else:
            self.phase = "ready"
            out.idle.append(self)
            out.pump()

    def deliver(self, m):
        self.m, self.seen, self.need = m, 0, 2 + len(m[2])
        rc = b"".join([b"RCPT TO:<%b>\r\n" % r for r in m[2]])
        self.send(b"MAIL FROM:<%b>\r\n%bBDAT %d LAST\r\n%b" % (m[1], rc, len(m[3]), m[3]))

    def connectionLost(self, reason):
        if self.m:
            out.todo.appendleft(self.m)
        if self in out.idle:
            out.idle.remove(self)
        out.gone()


class Outgoing(protocol.ClientFactory):
    noisy, protocol = False, Out

    def __init__(self):
        self.todo, self.idle, self.conns, self.retry = deque(), [], 0, None

    def extend(self, ms):
        self.todo.extend(ms)
        self.pump()

    def pump(self):
        while self.todo and self.idle:
            self.idle.pop().deliver(self.todo.popleft())
        while self.conns < min(a.out, len(self.todo)) and not self.retry:
            self.conns += 1
            reactor.connectTCP("127.0.0.1", a.sink, self)

    def gone(self):
        self.conns -= 1
        if not self.retry:
            self.retry = reactor.callLater(1, self.again)

    def again(self, *_):
        if self.retry and self.retry.active():
            self.retry.cancel()
        self.retry = None
        self.pump()

    def clientConnectionFailed(self, connector, reason):
        self.gone()


os.makedirs(a.queue, exist_ok=True)
out = Outgoing()
store = Store(os.path.join(a.queue, "q.db"))
store.start()
f = protocol.ServerFactory()
f.protocol, f.noisy = Ingress, False
reactor.listenTCP(a.port_in, f, interface="127.0.0.1")
reactor.callWhenRunning(
    lambda: signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(out.again))
)
reactor.run()
