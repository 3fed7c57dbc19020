"""Measure queueing relays: SMTP in on loopback, durable queue, STARTTLS+AUTH out to the sink.

  python relay_run.py [-a postfix,ours] [--messages 5000] [--rounds 3]

R1  throughput: N messages of 4 KB over C sessions; time until the sink has all of them
R2  latency: one message at a time; the time until the relay accepts it (250), and from there
    until the sink accepts it
R3  outage: the sink is down while the relay accepts N messages; then the sink starts and the
    relay is told to flush; the rates of both phases

The sink counts messages by recipient address, so losses and duplicates show.
The client is limit (C, pipelined, plain text), or smtp-source with --inject smtp-source.
"""

import argparse
import contextlib
import glob
import json
import os
import shutil
import smtplib
import socket
import subprocess
import sys
import tempfile
import time

import harness
from harness import med, table
from relay_adapters import RELAYS


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Bench:
    def __init__(self, env, a, name):
        self.env, self.a, self.name = env, a, name
        self.path, _ = env.message(4096)
        self.sink_port, self.port_in = free_port(), free_port()
        self.dir = tempfile.mkdtemp(prefix="relay-", dir=a.dir or env.work)
        self.sink = None
        self.relay = RELAYS[name](env, self.dir, self.port_in, self.sink_port)

    def start_sink(self):
        self.log = os.path.join(self.dir, "sink.log")
        extra = ["--delay-ms", self.a.delay_ms] if self.a.delay_ms else []
        self.sink = self.env.sink(
            "--port", self.sink_port, "--require-tls", "--require-auth", "--log", self.log, *extra
        )

    def inject(self, n):
        """Send *n* messages, over all the ports on which the relay accepts mail."""
        ports = self.relay.ports
        shares = [n // len(ports) + (i < n % len(ports)) for i in range(len(ports))]
        t = time.monotonic()
        clients = []
        for i, (port, share) in enumerate(zip(ports, shares, strict=True)):
            clients.append(
                subprocess.Popen(
                    self.injector(port, share, sum(shares[:i])),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        for client in clients:
            _, error = client.communicate(timeout=self.a.timeout)
            if client.returncode:
                raise RuntimeError("injector: " + error[-300:])
        return t, time.monotonic() - t

    def injector(self, port, n, first):
        sessions = max(1, self.a.sessions // len(self.relay.ports))
        if self.a.inject == "limit":
            return [
                os.path.join(self.env.build, "limit"),
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
                "--messages",
                str(n),
                "--message",
                self.path,
                "--connections",
                str(sessions),
                "--mode",
                "reuse",
                "--tls",
                "none",
                "--no-auth",
                "--data",
                "--unique",
                "--first",
                str(first),
            ]
        if len(self.relay.ports) > 1:
            raise LookupError("smtp-source cannot number the recipients over several relays")
        return [
            harness.which("smtp-source", "/usr/sbin", "/usr/local/sbin"),
            *("-d", "-N", "-s", str(sessions), "-m", str(n)),
            *("-f", "sender@bench.example", "-t", "rcpt@bench.example"),
            *("-M", "client.bench.example", "-F", self.path + ".lf"),
            "inet:127.0.0.1:%d" % port,
        ]

    def wait(self, n, since):
        last, moved = -1, time.monotonic()
        end = time.monotonic() + self.a.timeout
        while time.monotonic() < end:
            st = self.sink.stats()
            if st["messages"] >= n:
                return st
            if st["messages"] != last:
                last, moved = st["messages"], time.monotonic()
            elif time.monotonic() - moved > self.a.stall:
                break
            time.sleep(0.05)
        raise RuntimeError("only %d of %d messages arrived" % (last, n))

    def check(self, n):
        """Check that every message was delivered exactly once, from the log of the stopped sink."""
        seen = {}
        with open(self.log) as f:
            for line in f:
                r = line.split("\t")[6]
                seen[r] = seen.get(r, 0) + 1
        return {
            "distinct": len(seen),
            "duplicates": sum(v - 1 for v in seen.values()),
            "lost": n - len(seen),
        }

    def close(self):
        try:
            self.relay.stop()
        finally:
            if self.sink:
                with contextlib.suppress(Exception):
                    self.sink.stop()
            shutil.rmtree(self.dir, ignore_errors=True)

    def r1(self):
        n = self.a.messages
        self.start_sink()
        self.relay.start()
        cpu0 = harness.tree_cpu(self.relay.pids())
        t0, took = self.inject(n)
        st = self.wait(n, t0)
        pids = self.relay.pids()
        cpu, pss = harness.tree_cpu(pids) - cpu0, harness.tree_pss_mb(pids)
        time.sleep(0.3)  # would a duplicate still come?
        final = self.sink.stop()
        e2e = st["t_last_msg"] - t0
        return {
            "e2e_s": e2e,
            "msg_per_s": n / e2e,
            "accept_per_s": n / took,
            "cpu_us": cpu / n * 1e6,
            "pss_mb": pss,
            "processes": len(pids),
            "connections": final["connections"],
            "tls_full": final["tls_full"],
            "tls_resumed": final["tls_resumed"],
            **self.check(n),
        }

    def r2(self):
        self.start_sink()
        self.relay.start()
        with open(self.path, "rb") as f:
            body = f.read()
        accept, deliver = [], []
        with smtplib.SMTP(
            "127.0.0.1", self.port_in, local_hostname="client.bench.example", timeout=60
        ) as s:
            s.ehlo()
            for i in range(self.a.latency_messages + 3):
                s.mail("sender@bench.example")
                s.rcpt("rcpt%d@bench.example" % i)
                t = time.monotonic()
                code, _ = s.data(body)
                t1 = time.monotonic()
                if code != 250:
                    raise RuntimeError("refused")
                st = None
                end = t1 + 60
                while time.monotonic() < end:
                    st = self.sink.stats()
                    if st["messages"] > i:
                        break
                    time.sleep(0.001)
                else:
                    raise RuntimeError("message %d did not arrive" % i)
                if i >= 3:
                    accept.append((t1 - t) * 1e3)
                    deliver.append((st["t_last_msg"] - t1) * 1e3)
                time.sleep(0.02)
        accept.sort(), deliver.sort()
        q = lambda v, f: v[min(len(v) - 1, int(len(v) * f))]
        return {
            "accept_ms": q(accept, 0.5),
            "accept_p95": q(accept, 0.95),
            "deliver_ms": q(deliver, 0.5),
            "deliver_p95": q(deliver, 0.95),
        }

    def r3(self):
        n = self.a.messages
        self.relay.start()
        _t0, took = self.inject(n)
        time.sleep(self.a.outage)
        self.start_sink()
        t1 = time.monotonic()
        self.relay.flush()
        st = self.wait(n, t1)
        time.sleep(0.3)
        final = self.sink.stop()
        return {
            "accept_per_s": n / took,
            "first_after_s": st["t_first_msg"] - t1,
            "drain_per_s": n / (st["t_last_msg"] - t1),
            "connections": final["connections"],
            **self.check(n),
        }


COLUMNS = {
    "R1": [
        "msg_per_s",
        "accept_per_s",
        "cpu_us",
        "pss_mb",
        "processes",
        "connections",
        "lost",
        "duplicates",
    ],
    "R2": ["accept_ms", "accept_p95", "deliver_ms", "deliver_p95"],
    "R3": ["accept_per_s", "drain_per_s", "first_after_s", "connections", "lost", "duplicates"],
}


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("-a", "--adapters", default=",".join(RELAYS))
    p.add_argument("-w", "--workloads", default="R1,R2,R3")
    p.add_argument("--messages", type=int, default=5000)
    p.add_argument("--sessions", type=int, default=10)
    p.add_argument("--latency-messages", type=int, default=50)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--delay-ms", type=float, default=0, help="the sink's delay")
    p.add_argument(
        "--outage",
        type=float,
        default=2,
        help="R3: seconds between the last injection and the sink",
    )
    p.add_argument("--inject", choices=["limit", "smtp-source"], default="limit")
    p.add_argument("--timeout", type=float, default=180)
    p.add_argument("--stall", type=float, default=30)
    p.add_argument("--dir", help="where the queues go (the disk that is measured)")
    p.add_argument("--python")
    p.add_argument("--work")
    p.add_argument("--build")
    p.add_argument("--out")
    a = p.parse_args()
    env = harness.Env(a.work, a.build, a.python)
    names = a.adapters.split(",")
    res = {"machine": harness.machine(), "options": vars(a), "runs": {}}
    for w in a.workloads.split(","):
        runs = {n: [] for n in names}
        for i in range(a.rounds):
            for n in names[i % len(names) :] + names[: i % len(names)]:
                b = Bench(env, a, n)
                try:
                    runs[n].append(getattr(b, w.lower())())
                except LookupError as e:
                    print("%s: %s" % (n, e), file=sys.stderr)
                except Exception as e:
                    print("%s %s round %d: %r" % (w, n, i, e), file=sys.stderr)
                    for log in glob.glob(b.dir + "/log") + glob.glob(b.dir + "/relay*/log"):
                        with open(log, errors="replace") as f:
                            print("".join(f.readlines()[-8:]), file=sys.stderr)
                finally:
                    b.close()
        res["runs"][w] = runs
        cols = COLUMNS[w]
        key = cols[0]
        rows = []
        for n in names:
            rs = runs[n]
            v = [r[key] for r in rs]
            rows.append(
                [n, med(v), min(v, default=None), max(v, default=None)]
                + [med([r[c] for r in rs]) for c in cols[1:]]
            )
        print("\n## %s%s" % (w, " (sink delay %g ms)" % a.delay_ms if a.delay_ms else ""))
        print(table(["relay", key, "min", "max", *cols[1:]], rows), flush=True)
        if a.out:
            with open(a.out, "w") as f:
                json.dump(res, f, indent=1)


if __name__ == "__main__":
    main()
