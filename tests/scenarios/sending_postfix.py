"""A private Postfix that relays to a server of ours, over TLS and with AUTH.

Mail for `starttls.test` goes by STARTTLS, mail for `implicit.test` by implicit TLS.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.ports import free_port, listens
from tests.scenarios.postfix import _MASTER, PATIENCE, _found, _run
from tests.scenarios.postfix_configuration import INSIDE

if TYPE_CHECKING:
    from twisted_sendmail.testing import BackgroundServer

#: The user at the server, for Postfix and for other clients.
USER, PASSWORD = "jane@example.test", "s3cret-Pass/word+1"
MAIN = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
maillog_file = {directory}/maillog
maillog_file_prefixes = {directory}
mail_owner = postfix
setgid_group = postdrop
myhostname = mta.example.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
biff = no
notify_classes =
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_mynetworks, reject
local_header_rewrite_clients =
remote_header_rewrite_domain =
always_add_missing_headers = no
default_transport = error:nothing leaves this machine
transport_maps = inline:{{ {{ starttls.test = starttls:[localhost]:{port} }}, {{ implicit.test = implicit:[localhost]:{tls_port} }} }}
smtp_host_lookup = native
smtp_tls_security_level = secure
smtp_tls_secure_cert_match = hostname
smtp_tls_CAfile = {ca_file}
smtp_tls_loglevel = 1
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = inline:{{ {{ [localhost]:{port} = {user}:{password} }}, {{ [localhost]:{tls_port} = {user}:{password} }} }}
smtp_sasl_security_options = noanonymous
smtp_sasl_tls_security_options = noanonymous
"""

MASTER = """\
127.0.0.1:{listen} inet n - n - - smtpd
starttls  unix  - - n - - smtp
implicit  unix  - - n - - smtp -o smtp_tls_wrappermode=yes
"""


class SendingPostfix:
    """`with SendingPostfix(server, user, password) as postfix`: it listens on `postfix.port`."""

    def __init__(self, server: BackgroundServer, user: str, password: str) -> None:
        self._server = server
        self._user, self._password = user, password
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def log(self) -> str:
        return (self._directory / "maillog").read_text("utf-8", "replace")

    def __enter__(self) -> SendingPostfix:
        self._directory = at = Path(tempfile.mkdtemp(prefix="postfix-"))
        try:
            self._configure(at)
            self._start(at)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            # It leads its own group, in which nobody else is; its children end with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _configure(self, at: Path) -> None:
        at.chmod(0o755)
        owner = pwd.getpwnam("postfix")
        for name in ("conf", "data", "queue"):
            (at / name).mkdir()
        os.chown(at / "data", owner.pw_uid, owner.pw_gid)
        (at / "maillog").touch()
        shutil.copy(self._server.ca_file, at / "ca.pem")
        (at / "ca.pem").chmod(0o644)
        self.port = free_port()
        main = MAIN.format(
            directory=at,
            port=self._server.port,
            tls_port=self._server.tls_port,
            ca_file=at / "ca.pem",
            user=self._user,
            password=self._password,
        )
        (at / "conf/main.cf").write_text(main, "ascii")
        (at / "conf/master.cf").write_text(MASTER.format(listen=self.port) + INSIDE, "ascii")

    def _start(self, at: Path) -> None:
        configuration = str(at / "conf")
        _run("postfix", "-c", configuration, "check")
        # Ended when we are, however we end.
        guard = [_found("setpriv") or "setpriv", "--pdeathsig", "TERM"]
        self._process = subprocess.Popen(
            [*guard, str(_MASTER), "-c", configuration, "-d"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + PATIENCE
        while not listens(self.port):
            assert self._process.poll() is None, f"Postfix ended at once:\n{self.log}"
            assert time.monotonic() < deadline, f"Postfix does not answer:\n{self.log}"
            time.sleep(0.05)
