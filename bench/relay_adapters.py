"""The relays that are measured. A relay accepts mail on an SMTP port on loopback, stores it
durably, replies 250, and delivers it to the sink with verified STARTTLS and AUTH.

To add one, add an entry to RELAYS.  The simplest is Command(argv), where
{python} {port_in} {sink} {cafile} {queue} {dir} are filled in: it must listen on
127.0.0.1:{port_in}, relay to 127.0.0.1:{sink}, trust {cafile} and keep its queue
under {queue}; SIGTERM stops it.  `flush` makes it retry at once: a signal
number, an argv, or None if it notices by itself. `secrets` are files made in {dir} that only
their owner can read.
"""

import glob
import os
import pwd
import signal
import socket
import subprocess
import time
import urllib.parse

import harness


class Relay:
    inject = "smtp"

    def __init__(self, env, directory, port_in, sink, **options):
        self.env, self.dir, self.port_in, self.sink, self.options = (
            env,
            directory,
            port_in,
            sink,
            options,
        )

    def start(self):
        raise NotImplementedError

    def pids(self):
        """The relay's processes, for CPU time and memory."""
        return []

    def flush(self):
        pass

    def stop(self):
        raise NotImplementedError

    @property
    def ports(self):
        """The ports on which it accepts mail."""
        return [self.port_in]

    def wait_ready(self, timeout=30):
        end = time.monotonic() + timeout
        for port in self.ports:
            while not self._answers(port):
                if time.monotonic() > end:
                    raise RuntimeError("the relay did not come up")
                time.sleep(0.05)

    @staticmethod
    def _answers(port):
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as s:
                s.settimeout(5)
                if s.recv(512).startswith(b"220"):
                    s.sendall(b"QUIT\r\n")
                    s.recv(512)
                    return True
        except OSError:
            pass
        return False


class Command(Relay):
    def __init__(
        self, env, directory, port_in, sink, argv=None, flush=None, environ=None, secrets=None
    ):
        Relay.__init__(self, env, directory, port_in, sink)
        self.argv, self._flush, self.environ = argv, flush, environ or {}
        self.secrets = secrets or {}

    def _fill(self, s):
        return s.format(
            python=self.env.python,
            port_in=self.port_in,
            sink=self.sink,
            cafile=self.env.cafile,
            queue=os.path.join(self.dir, "queue"),
            dir=self.dir,
            here=harness.HERE,
        )

    def start(self):
        os.makedirs(os.path.join(self.dir, "queue"), exist_ok=True)
        for name, secret in self.secrets.items():
            with open(
                os.open(os.path.join(self.dir, name), os.O_WRONLY | os.O_CREAT, 0o600), "w"
            ) as f:
                f.write(secret)
        self.log = open(os.path.join(self.dir, "log"), "wb")
        env = dict(os.environ, **{k: self._fill(v) for k, v in self.environ.items()})
        self.p = subprocess.Popen(
            [self._fill(x) for x in self.argv],
            stdout=self.log,
            stderr=self.log,
            env=env,
            start_new_session=True,
        )
        self.wait_ready()

    def pids(self):
        return harness.tree(self.p.pid)

    def flush(self):
        if isinstance(self._flush, int):
            self.p.send_signal(self._flush)
        elif self._flush:
            subprocess.run([self._fill(x) for x in self._flush], check=True)

    def stop(self):
        self.p.send_signal(signal.SIGTERM)
        try:
            self.p.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.p.pid, signal.SIGKILL)
            self.p.wait()
        self.log.close()


MASTER_CF = """\
127.0.0.1:{port_in} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsproxy unix - - n - 0 tlsproxy
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix(Relay):
    """Its own configuration, queue and data directory; needs root and the package."""

    def __init__(self, env, directory, port_in, sink, *, reuse=False, **main):
        Relay.__init__(self, env, directory, port_in, sink)
        self.reuse, self.main = reuse, main

    def start(self):
        exe = harness.which("postfix", "/usr/sbin", "/usr/local/sbin")
        if not exe or os.getuid() != 0:
            raise LookupError("needs root and the package postfix")
        sbin = os.path.dirname(exe)
        self.exe = exe
        default = lambda k: subprocess.run(
            [os.path.join(sbin, "postconf"), "-d", "-h", k],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
        self.etc, spool, data = (os.path.join(self.dir, n) for n in ("etc", "spool", "data"))
        for d in (self.etc, spool, data):
            os.makedirs(d)
        user = pwd.getpwnam("postfix")
        os.chown(data, user.pw_uid, user.pw_gid)
        for d in (self.dir, os.path.dirname(self.dir)):
            os.chmod(d, 0o755)  # noqa: S103 - Postfix's own processes look into it
        main = {
            "compatibility_level": "3.6",
            "queue_directory": spool,
            "data_directory": data,
            "command_directory": sbin,
            "daemon_directory": default("daemon_directory"),
            "shlib_directory": default("shlib_directory"),
            "meta_directory": default("meta_directory"),
            "mail_owner": "postfix",
            "setgid_group": "postdrop",
            "myhostname": "relay.bench.example",
            "mydestination": "",
            "local_transport": "error:no local mail",
            "local_recipient_maps": "",
            "alias_maps": "",
            "alias_database": "",
            "mynetworks": "127.0.0.0/8",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "smtpd_relay_restrictions": "permit_mynetworks, reject",
            "smtpd_client_connection_count_limit": "0",
            "smtpd_peername_lookup": "no",
            "smtp_dns_support_level": "disabled",
            "smtp_host_lookup": "native",
            "relayhost": "[127.0.0.1]:%d" % self.sink,
            "smtp_tls_security_level": "secure",
            "smtp_tls_secure_cert_match": "localhost",
            "smtp_tls_CAfile": self.env.cafile,
            "smtp_tls_connection_reuse": "yes" if self.reuse else "no",
            "smtp_tls_session_cache_database": "",
            "smtp_sasl_auth_enable": "yes",
            "smtp_sasl_security_options": "noanonymous",
            "smtp_sasl_password_maps": "inline:{ {[127.0.0.1]:%d = user:password} }" % self.sink,
            "maillog_file": os.path.join(self.dir, "log"),
            "maillog_file_prefixes": self.dir,
        }
        main.update(self.main)
        with open(os.path.join(self.etc, "main.cf"), "w") as f:
            f.writelines("%s = %s\n" % kv for kv in main.items())
        with open(os.path.join(self.etc, "master.cf"), "w") as f:
            f.write(MASTER_CF.format(port_in=self.port_in))
        r = subprocess.run(
            [exe, "-c", self.etc, "start"], capture_output=True, text=True, check=False
        )
        if r.returncode:
            raise RuntimeError("postfix start: " + r.stderr[-400:])
        with open(os.path.join(spool, "pid", "master.pid")) as f:
            self.pid = int(f.read())
        self.wait_ready()

    def pids(self):
        return harness.tree(self.pid)

    def flush(self):
        subprocess.run([self.exe, "-c", self.etc, "flush"], capture_output=True, check=False)

    def stop(self):
        subprocess.run([self.exe, "-c", self.etc, "stop"], capture_output=True, check=False)
        for _ in range(100):
            if not os.path.exists("/proc/%d" % self.pid):
                break
            time.sleep(0.1)


TWISTD = (
    *("{python}", "-c", "from twisted.scripts.twistd import run; run()"),
    *("--nodaemon", "--pidfile=", "sendmail"),
)
#: A queue in a database needs a directory for mail of the machine, which has no flag.
CONFIGURATION = """\
name = "relay.bench.example"
queue = "{queue}"
spool = "{dir}/queue"

[[listen]]
endpoint = "tcp:127.0.0.1:{port_in}"

[[smarthost]]
url = "smtp+starttls://user@localhost:{sink}"
password-file = "{dir}/password"
ca-file = "{cafile}"
"""


class OnPostgreSQL(Relay):
    """Relays that share a queue in a PostgreSQL of their own, with its defaults, on the measured disk.

    CPU and memory are those of the relays and of the database.
    """

    def __init__(self, env, directory, port_in, sink, *, relays=1):
        Relay.__init__(self, env, directory, port_in, sink)
        self._ports = [port_in]
        while len(self._ports) < relays:
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
                self._ports.append(s.getsockname()[1])
        self.relays = []

    @property
    def ports(self):
        return self._ports

    def start(self):
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
        if not found:
            raise LookupError("needs PostgreSQL")
        self.bin, self.data = found[-1], os.path.join(self.dir, "postgresql")
        os.makedirs(self.data)
        self.user = {}
        if os.getuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self.data, owner.pw_uid, owner.pw_gid)
            self.user = {"user": "postgres", "group": "postgres", "extra_groups": []}
            for d in (self.dir, os.path.dirname(self.dir)):
                os.chmod(d, 0o755)  # noqa: S103 - the database's own user looks into it
        self._run("initdb", "-D", self.data, "-U", "relay", "-A", "trust", "-E", "UTF8")
        options = "-c listen_addresses='' -c unix_socket_directories=" + self.data
        self._run("pg_ctl", "-D", self.data, "-w", "-l", self.data + "/log", "-o", options, "start")
        with open(self.data + "/postmaster.pid") as f:
            self.database = int(f.readline())
        url = "postgresql://relay@/postgres?" + urllib.parse.urlencode({"host": self.data})
        for number, port in enumerate(self.ports):
            directory = os.path.join(self.dir, "relay%d" % number)
            relay = Command(
                self.env, directory, port, self.sink,
                argv=[*TWISTD, "--config", "{dir}/relay.toml"],
                flush=signal.SIGUSR1,
                secrets={
                    "password": "password\n",
                    "relay.toml": CONFIGURATION.format(
                        queue="%s&node=relay%d" % (url, number), dir=directory, port_in=port,
                        sink=self.sink, cafile=self.env.cafile,
                    ),
                },
            )  # fmt: skip
            relay.start()
            self.relays.append(relay)

    def _run(self, program, *arguments):
        r = subprocess.run(
            [os.path.join(self.bin, program), *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            check=False,
            **self.user,
        )
        if r.returncode:
            raise RuntimeError("%s: %s" % (program, r.stderr[-300:]))

    def pids(self):
        found = harness.tree(self.database)
        for relay in self.relays:
            found += relay.pids()
        return found

    def flush(self):
        self.relays[0].flush()

    def stop(self):
        for relay in self.relays:
            relay.stop()
        if os.path.exists(os.path.join(self.data, "postmaster.pid")):
            self._run("pg_ctl", "-D", self.data, "-w", "-m", "fast", "stop")


def _relay(queue):
    """Return the command of this package's relay."""
    return [
        *TWISTD,
        *("--listen", "tcp:127.0.0.1:{port_in}", "--queue", queue),
        *("--smarthost", "smtp+starttls://user@localhost:{sink}"),
        *("--password-file", "{dir}/password", "--ca-file", "{cafile}"),
    ]


def _on_postgresql(relays):
    return lambda env, d, i, s: OnPostgreSQL(env, d, i, s, relays=relays)


def _postfix(**kw):
    return lambda env, d, i, s: Postfix(env, d, i, s, **kw)


def _command(argv, **kw):
    return lambda env, d, i, s: Command(env, d, i, s, argv=argv, **kw)


RELAYS = {
    "postfix": _postfix(),
    "postfix-tls-reuse": _postfix(reuse=True),
    "postfix-noflow": _postfix(reuse=True, in_flow_delay="0"),
    "tx-relay-ceiling": _command(
        [
            "{python}",
            "{here}/relay_ceiling.py",
            "--port-in",
            "{port_in}",
            "--sink",
            "{sink}",
            "--cafile",
            "{cafile}",
            "--queue",
            "{queue}",
        ],
        flush=signal.SIGUSR1,
    ),
    "ours": _command(_relay("{queue}"), flush=signal.SIGUSR1, secrets={"password": "password\n"}),
    "ours-postgresql": _on_postgresql(1),
    "ours-postgresql-3": _on_postgresql(3),
}
