"""A private Dovecot as a submission server that accepts the tokens of an authorization server.

It asks the server about each token (RFC 7662), and passes messages on to a next hop.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.ports import free_ports, listens
from tests.scenarios.postfix import GUARD, PATIENCE
from twisted_sendmail.testing import Authority

if TYPE_CHECKING:
    from tests.scenarios.authorization_server import AuthorizationServer

_CONFIGURATION = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols = submission
listen = 127.0.0.1
hostname = localhost
ssl = required
ssl_cert = <{folder}/server.pem
ssl_key = <{folder}/server.pem
auth_mechanisms = oauthbearer xoauth2
auth_failure_delay = 0
mail_location = maildir:{folder}/mail/%u
submission_relay_host = 127.0.0.1
submission_relay_port = {hop}
submission_relay_ssl = no
service submission-login {{
  inet_listener submission {{
    port = {port}
  }}
  inet_listener submissions {{
    port = 0
  }}
}}
# Without the delay that grows with the failures of an address.
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
passdb {{
  driver = oauth2
  mechanisms = oauthbearer xoauth2
  args = {folder}/oauth2.conf
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={folder}/home
}}
"""
_OAUTH = """
introspection_mode = post
introspection_url = http://mailer:{secret}@127.0.0.1:{port}/introspect
username_attribute = username
active_attribute = active
active_value = true
"""


def why_not() -> str | None:
    """Why Dovecot cannot be run here; None if it can."""
    if os.geteuid() != 0:
        return "Dovecot has to be started by root"
    if _program() is None or not Path("/usr/lib/dovecot/submission").exists():
        return "not installed; run tests/install-peers"
    return None


def _program() -> str | None:
    return shutil.which("dovecot", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")


class Dovecot:
    """The running server; :meth:`stop` ends it.

    :param tokens: the server that it asks about tokens.
    :param secret: of the client ``mailer`` there.
    :param hop: the port of the next hop, without TLS and AUTH.
    """

    def __init__(self, tokens: AuthorizationServer, secret: str, hop: int) -> None:
        # Its unprivileged processes have to reach it.
        self._folder = Path(tempfile.mkdtemp(prefix="dovecot"))
        self._folder.chmod(0o755)
        authority = Authority()
        self.ca_file = self._folder / "ca.pem"
        self.ca_file.write_bytes(authority.pem)
        (self._folder / "server.pem").write_bytes(authority.issue())
        (self.port,) = free_ports(1)
        text = _CONFIGURATION.format(folder=self._folder, hop=hop, port=self.port)
        (self._folder / "dovecot.conf").write_text(text)
        oauth = _OAUTH.format(secret=secret, port=tokens.port)
        (self._folder / "oauth2.conf").write_text(oauth)
        program = _program()
        assert program is not None
        words = [program, "-F", "-c", f"{self._folder}/dovecot.conf"]
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "sh", str(self._folder), *words],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        end = time.monotonic() + PATIENCE
        while not listens(self.port):
            if time.monotonic() > end or self._guard.poll() is not None:
                raise AssertionError(f"Dovecot did not start: {self.log()}")
            time.sleep(0.05)

    def log(self) -> str:
        """Return the log."""
        log = self._folder / "log"
        return log.read_text() if log.exists() else ""

    @property
    def url(self) -> str:
        """With STARTTLS, without a user."""
        return f"smtp+starttls://localhost:{self.port}"

    def stop(self) -> None:
        """End its processes, and remove its folder."""
        assert self._guard.stdin is not None
        assert self._guard.stderr is not None
        self._guard.stdin.close()
        _ = self._guard.wait(PATIENCE)
        self._guard.stderr.close()
