"""Measure the cost of receiving mail: CPU µs a message in the process of the server.

  python intake.py [-s ours,ours-queue,tx-bare,twisted] [--messages 10000] [--rounds 5]

The client is build/limit: clear text, DATA, the envelope in one write and the content in the next,
each message to another recipient. The servers accept everything:

  ours           our server, with a receiver that accepts at once
  ours-queue     the same with the relay's receiver, and a queue that keeps nothing
  tx-bare        a Twisted protocol that only finds lines and the end of the content: the limit of Twisted
  twisted        the ESMTP server of twisted.mail

Rounds are interleaved; the table gives medians.  `--profile FILE` writes a profile of
the first round of each server to FILE.NAME.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SERVERS = ("ours", "ours-queue", "tx-bare", "twisted")


# -- the servers, each in a process of its own --------------------------------


def ours(reactor, queueing):
    from twisted_sendmail.server import Receiver, SMTPServerFactory
    from twisted_sendmail.smtp import ServerSettings

    make = Receiver
    if queueing:
        make = queue_receiver(reactor)
    settings = ServerSettings(host="relay.bench.example", require_tls=False)
    return SMTPServerFactory(reactor, make, settings=settings)


def queue_receiver(reactor):
    from twisted.internet.defer import succeed

    from twisted_sendmail.queue import CleanupPolicy, QueueIds
    from twisted_sendmail.server import QueueReceiver

    class Forgetful:
        def __init__(self):
            self.new_id = QueueIds(time.time)

        def intake(self):
            return self

        def write(self, data):
            return None

        def commit(self, info):
            return succeed(None)

        def abort(self):
            pass

    queue = Forgetful()
    policy = CleanupPolicy("relay.bench.example", lambda *_: "default")
    return lambda connection: QueueReceiver(connection, queue, policy, reactor)


def tx_bare():
    from twisted.internet.protocol import Factory, Protocol

    class Bare(Protocol):
        buffer, content = b"", False

        def connectionMade(self):
            self.transport.write(b"220 relay.bench.example ESMTP\r\n")

        def dataReceived(self, data):
            data = self.buffer + data
            out = []
            while data:
                if self.content:
                    end = data.find(b"\r\n.\r\n")
                    if end < 0:
                        break
                    data[: end + 2].replace(b"\r\n.", b"\r\n")
                    data, self.content = data[end + 5 :], False
                    out.append(b"250 2.0.0 Ok\r\n")
                    continue
                line, found, rest = data.partition(b"\r\n")
                if not found:
                    break
                data = rest
                verb = line[:4].upper()
                if verb == b"DATA":
                    self.content = True
                    out.append(b"354 go on\r\n")
                elif verb == b"EHLO":
                    out.append(b"250-relay.bench.example\r\n250 PIPELINING\r\n")
                elif verb == b"QUIT":
                    self.transport.write(b"".join([*out, b"221 bye\r\n"]))
                    self.transport.loseConnection()
                    return
                else:
                    out.append(b"250 2.0.0 Ok\r\n")
            self.buffer = data
            if out:
                self.transport.write(b"".join(out))

    return Factory.forProtocol(Bare)


def of_twisted():
    from twisted.internet.defer import succeed
    from twisted.mail import smtp
    from zope.interface import implementer

    @implementer(smtp.IMessage)
    class Message:
        def __init__(self):
            self.lines = []

        def lineReceived(self, line):
            self.lines.append(line)

        def eomReceived(self):
            return succeed("2.0.0 Ok")

        def connectionLost(self):
            pass

    @implementer(smtp.IMessageDelivery)
    class Delivery:
        def receivedHeader(self, helo, origin, recipients):
            return b"Received: by relay.bench.example; " + smtp.rfc822date()

        def validateFrom(self, helo, origin):
            return origin

        def validateTo(self, user):
            return Message

    class ESMTP(smtp.ESMTP):
        def extensions(self):
            return {**smtp.ESMTP.extensions(self), b"PIPELINING": None}

    class Factory(smtp.SMTPFactory):
        protocol = ESMTP
        noisy = False

        def buildProtocol(self, addr):
            protocol = smtp.SMTPFactory.buildProtocol(self, addr)
            protocol.delivery = Delivery()
            return protocol

    return Factory()


def serve(name, profile):
    from twisted.internet import reactor
    from twisted.internet.protocol import Factory

    Factory.noisy = False
    factory = {
        "ours": lambda: ours(reactor, False),
        "ours-queue": lambda: ours(reactor, True),
        "tx-bare": tx_bare,
        "twisted": of_twisted,
    }[name]()
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    if not profile:
        reactor.run()
        return
    import cProfile

    profiler = cProfile.Profile()
    profiler.runcall(reactor.run)
    profiler.dump_stats(profile)


# -- measuring -----------------------------------------------------------------


def cpu(pid):
    """Seconds of a process, without its children."""
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def once(a, name, profile):
    cmd = [sys.executable, os.path.abspath(__file__), "--serve", name]
    if profile:
        cmd += ["--profile", profile + "." + name]
    with subprocess.Popen(cmd, stdout=subprocess.PIPE, text=True) as server:
        try:
            port = int(server.stdout.readline())
            inject(a, port, 200)  # let it warm up
            before, t = cpu(server.pid), time.monotonic()
            inject(a, port, a.messages)
            took = time.monotonic() - t
            used = cpu(server.pid) - before
        finally:
            server.terminate()
            server.wait(20)
    return {"cpu_us": used / a.messages * 1e6, "msg_per_s": a.messages / took}


def inject(a, port, n):
    cmd = [a.limit, "--host", "127.0.0.1", "--port", port, "--messages", n, "--message", a.message]
    cmd += ["--connections", a.connections, "--mode", "reuse", "--tls", "none", "--no-auth"]
    cmd += ["--data", "--unique"]
    argv = [str(x) for x in cmd]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=a.timeout)
    if done.returncode:
        raise RuntimeError("injector: " + done.stderr[-300:])


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("-s", "--servers", default=",".join(SERVERS))
    p.add_argument("--messages", type=int, default=10_000)
    p.add_argument("--size", type=int, default=4096)
    p.add_argument("--connections", type=int, default=10)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--limit", help="the injector, if not build/limit")
    p.add_argument("--timeout", type=float, default=120)
    p.add_argument("--profile")
    p.add_argument("--json")
    p.add_argument("--serve", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.serve:
        serve(a.serve, a.profile)
        return
    build = os.environ.get("BENCH_BUILD") or os.path.join(HERE, "build")
    a.limit = a.limit or os.path.join(build, "limit")
    if not os.path.exists(a.limit):
        raise SystemExit("no %s: run make build first" % a.limit)
    names = a.servers.split(",")
    runs = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as directory:
        a.message = os.path.join(directory, "message")
        with open(a.message, "wb") as f:
            f.write(message(a.size))
        for i in range(a.rounds):
            for name in names[i % len(names) :] + names[: i % len(names)]:
                runs[name].append(once(a, name, a.profile if i == 0 else None))
    print("| server | CPU µs a message | least | most | messages a second |")
    print("|---|---|---|---|---|")
    for name in names:
        used = [run["cpu_us"] for run in runs[name]]
        rate = statistics.median(run["msg_per_s"] for run in runs[name])
        print(
            "| %s | %.0f | %.0f | %.0f | %.0f |"
            % (name, statistics.median(used), min(used), max(used), rate)
        )
    if a.json:
        with open(a.json, "w") as f:
            json.dump({"options": vars(a), "runs": runs}, f, indent=1)


def message(size):
    head = (
        b"From: <sender@bench.example>\r\nTo: <rcpt0@bench.example>\r\nSubject: bench\r\n"
        b"Message-ID: <bench@bench.example>\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\n"
        b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"
    )
    ring = bytes(range(48, 123)) * 2
    lines = [(b"." if i % 16 == 7 else b"") + ring[i : i + 75] + b"\r\n" for i in range(60)]
    body = b"".join(lines) * (size // 4500 + 1)
    return head + body[: size - len(head) - 2] + b"\r\n"


if __name__ == "__main__":
    main()
