"""Shared by run.py and flights.py: certificates, messages, the sink, one run of one client,
statistics, tables."""

import hashlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def default_work():
    return os.environ.get("BENCH_WORK") or os.path.join(
        tempfile.gettempdir(), "smtp-bench-%d" % os.getuid()
    )


def build_dir():
    return os.environ.get("BENCH_BUILD") or os.path.join(HERE, "build")


class Env:
    def __init__(self, work=None, build=None, python=None):
        self.work = os.path.abspath(work or default_work())
        self.build = os.path.abspath(build or build_dir())
        self.python = python or sys.executable
        os.makedirs(self.work, exist_ok=True)
        self.sink_exe = os.path.join(self.build, "sink")
        if not os.path.exists(self.sink_exe):
            raise SystemExit("no sink in %s: run make first" % self.build)
        self.make_certificates()

    # -- certificates ------------------------------------------------------
    def make_certificates(self):
        d = os.path.join(self.work, "pki")
        self.cafile, self.cert, self.key = (
            os.path.join(d, n) for n in ("ca.pem", "cert.pem", "key.pem")
        )
        if all(map(os.path.exists, (self.cafile, self.cert, self.key))):
            return
        os.makedirs(d, exist_ok=True)
        cakey, csr, ext = (os.path.join(d, n) for n in ("ca.key", "cert.csr", "ext"))
        with open(ext, "w") as f:
            f.write(
                "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n"
            )
        p256 = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        for cmd in (
            [
                "req",
                "-x509",
                *p256,
                "-keyout",
                cakey,
                "-out",
                self.cafile,
                "-days",
                "365",
                "-subj",
                "/CN=bench CA",
                "-addext",
                "keyUsage=critical,keyCertSign,cRLSign",
            ],
            ["req", *p256, "-keyout", self.key, "-out", csr, "-subj", "/CN=localhost"],
            [
                "x509",
                "-req",
                "-in",
                csr,
                "-CA",
                self.cafile,
                "-CAkey",
                cakey,
                "-CAcreateserial",
                "-out",
                self.cert,
                "-days",
                "365",
                "-extfile",
                ext,
            ],
        ):
            subprocess.run(
                ["openssl", *cmd], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )

    # -- messages ----------------------------------------------------------
    def message(self, size):
        """Make a file of exactly `size` bytes with CRLF lines, one in 16 starting with a dot,
        and FILE.lf, the same with LF. Returns path, sha256."""
        path = os.path.join(self.work, "message-%d" % size)
        meta = path + ".sha256"
        if os.path.exists(meta):
            return path, open(meta).read()
        head = (
            b"From: <sender@bench.example>\r\nTo: <rcpt0@bench.example>\r\nSubject: bench\r\n"
            b"Message-ID: <bench@bench.example>\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\nMIME-Version: 1.0\r\n"
            b"Content-Type: text/plain; charset=us-ascii\r\n\r\n"
        )
        alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        ring = alphabet * 3
        lines = [
            (b"." + ring[i : i + 75] if i % 16 == 7 else ring[i : i + 76]) + b"\r\n"
            for i in range(64)
        ]
        unit = b"".join(lines)
        h = hashlib.sha256()
        with open(path, "wb") as f, open(path + ".lf", "wb") as g:

            def put(b):
                f.write(b), g.write(b.replace(b"\r\n", b"\n")), h.update(b)

            put(head)
            left = size - len(head)
            big = unit * 64
            while left > len(big) + 80:
                put(big)
                left -= len(big)
            i = 0
            while left > 160:
                put(lines[i % 64])
                left -= 78
                i += 1
            while left > 80:
                put(b"x" * 38 + b"\r\n")
                left -= 40
            put(b"y" * (left - 2) + b"\r\n")
        assert os.path.getsize(path) == size
        with open(meta, "w") as f:
            f.write(h.hexdigest())
        return path, h.hexdigest()

    # -- the sink ----------------------------------------------------------
    def sink(self, *args, cpu=None, tls=True):
        return Sink(self, args, cpu, tls)


NICE = -20  # against other work on the machine; needs root, else left alone


def pinned(cpu):
    """A preexec_fn that pins the process to one CPU (None: any) and raises its priority."""

    def f():
        if cpu is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {cpu})
        if NICE and os.getuid() == 0:
            os.nice(NICE)

    return f


def speed(cpu):
    """The speed of this CPU now (Python work per CPU second); a busy sibling thread or a
    throttled clock lowers it."""
    old = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") and cpu is not None else None
    if old:
        os.sched_setaffinity(0, {cpu})
    try:
        t = time.process_time()
        d = {}
        for i in range(120000):
            d[i & 1023] = b"%d" % i
        t = time.process_time() - t
    finally:
        if old:
            os.sched_setaffinity(0, old)
    return 1 / t


def cpus():
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]


def pin_plan(pin):
    """(sink cpu, client cpu) for same | split | none."""
    c = cpus()
    if pin == "none":
        return None, None
    if pin == "split" and len(c) > 1:
        return c[0], c[-1]
    return c[-1], c[-1]


class Sink:
    def __init__(self, env, args, cpu, tls):
        cmd = [env.sink_exe]
        if tls:
            cmd += ["--cert", env.cert, "--key", env.key]
        cmd += map(str, args)
        self.p = subprocess.Popen(cmd, stdout=subprocess.PIPE, preexec_fn=pinned(cpu))
        line = self.p.stdout.readline().decode()
        if not line.startswith("READY "):
            raise RuntimeError("the sink did not start: %r" % line)
        info = json.loads(line[6:])
        self.port, self.tls_port = info["port"], info["tls_port"]

    def stats(self):
        self.p.send_signal(signal.SIGUSR1)
        return json.loads(self.p.stdout.readline())

    def stop(self):
        if self.p.poll() is None:
            self.p.send_signal(signal.SIGTERM)
        try:
            out, _ = self.p.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.p.kill()
            self.p.communicate()
            raise
        lines = [l for l in out.decode().splitlines() if l.startswith("{")]
        return json.loads(lines[-1]) if lines else {}


def run_client(cmd, timeout, cpu=None, env=None):
    """Run one client; returns (report or None, exit code, stderr tail)."""
    with tempfile.TemporaryFile() as err:
        p = subprocess.Popen(
            cmd,
            stdout=subprocess.PIPE,
            stderr=err,
            preexec_fn=pinned(cpu),
            env=env,
            start_new_session=True,
        )
        try:
            out, _ = p.communicate(timeout=timeout)
            rc = p.returncode
        except subprocess.TimeoutExpired:
            os.killpg(p.pid, signal.SIGKILL)  # its own session: only what it started
            out, _ = p.communicate()
            rc = "timeout"
        err.seek(0)
        tail = err.read()[-600:].decode("utf-8", "replace")
    report = None
    for line in reversed(out.decode("utf-8", "replace").splitlines()):
        if line.startswith("{"):
            try:
                report = json.loads(line)
            except ValueError:
                pass
            break
    return report, rc, tail


def machine():
    model = ""
    try:
        for line in open("/proc/cpuinfo"):
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return {
        "cpus": os.cpu_count(),
        "model": model,
        "kernel": os.uname().release,
        "python": sys.version.split()[0],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def med(v):
    return statistics.median(v) if v else None


def fmt(v):
    if v is None:
        return "-"
    if isinstance(v, str):
        return v
    if v == 0:
        return "0"
    if abs(v) >= 1000:
        return f"{v:,.0f}"
    if abs(v) >= 100:
        return "%.0f" % v
    if abs(v) >= 10:
        return "%.1f" % v
    return "%.2f" % v


def table(head, rows):
    rows = [[c if isinstance(c, str) else fmt(c) for c in r] for r in rows]
    w = [max(len(str(r[i])) for r in [head, *rows]) for i in range(len(head))]
    line = lambda r: (
        "| "
        + " | ".join(str(c).ljust(w[i]) if i == 0 else str(c).rjust(w[i]) for i, c in enumerate(r))
        + " |"
    )
    sep = (
        "|"
        + "|".join("-" * (w[i] + 2) if i == 0 else "-" * (w[i] + 1) + ":" for i in range(len(head)))
        + "|"
    )
    return "\n".join([line(head), sep, *map(line, rows)])


def which(name, *dirs):
    return (
        shutil.which(name) or shutil.which(name, path=os.pathsep.join(dirs))
        if dirs
        else shutil.which(name)
    )


# -- process trees (Linux) ----------------------------------------------------
def tree(pid):
    """Pid and its descendants."""
    kids = {}
    for d in os.listdir("/proc"):
        if d.isdigit():
            try:
                with open("/proc/%s/stat" % d) as f:
                    ppid = int(f.read().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
            kids.setdefault(ppid, []).append(int(d))
    out, todo = [], [pid]
    while todo:
        p = todo.pop()
        out.append(p)
        todo += kids.get(p, [])
    return out


def tree_cpu(pids):
    """CPU seconds of these processes and of their ended children."""
    hz, total = os.sysconf("SC_CLK_TCK"), 0
    for p in pids:
        try:
            with open("/proc/%d/stat" % p) as f:
                v = f.read().rsplit(")", 1)[1].split()
            total += sum(map(int, v[11:15]))
        except OSError:
            pass
    return total / hz


def tree_pss_mb(pids):
    total = 0
    for p in pids:
        try:
            with open("/proc/%d/smaps_rollup" % p) as f:
                for line in f:
                    if line.startswith("Pss:"):
                        total += int(line.split()[1])
                        break
        except OSError:
            pass
    return total / 1024
