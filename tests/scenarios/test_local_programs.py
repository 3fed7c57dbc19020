"""Programs that call ``/usr/sbin/sendmail`` send their mail through the relay.

Each runs in a mount namespace of its own in which that file is ours.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from tests.other_users import needs_root
from tests.scenarios.peers import require

if TYPE_CHECKING:
    from tests.scenarios.relay_process import Relay
    from twisted_sendmail.testing import LoopbackServer, ReceivedMessage

BIN = Path(sys.executable).parent
SENDMAIL = Path("/usr/sbin/sendmail")
#: Seconds.
PATIENCE = 60.0

GIT = """
export HOME=$PWD GIT_AUTHOR_DATE=2026-01-01T12:00:00 GIT_COMMITTER_DATE=2026-01-01T12:00:00
git init -q repository && cd repository
git config user.name Dev && git config user.email dev@example.org
echo text >file && git add file && git commit -q -m "area: a change"
git format-patch -q -1 && git send-email --quiet --confirm=never --suppress-cc=all \
  --from=dev@example.org --to=bob@example.net 0001-*.patch >sent
"""
PHP = """
php -r 'mail("bob@example.net", "from php", "Hi.\\n.\\nend", "From: www@example.org") or exit(1);'
"""
CRON = """
mount -t tmpfs none /etc/cron.d && mount -t tmpfs none /var/spool/cron && mount -t tmpfs none /run
mount --bind /dev/null /etc/crontab
printf 'MAILTO=bob@example.net\\n* * * * * root echo "the job says: Zoë"\\n' >/etc/cron.d/job
# Its jobs begin with each minute.
exec timeout 62 cron -f >/dev/null 2>&1
"""
PROGRAMS = {
    "git": ("git", GIT, "Subject: [PATCH] area: a change", "+text"),
    "php": (
        "php",
        PHP,
        "Subject: from php",
        "Hi.\r\n.\r\nend\r\n",
    ),
    "mail": ("mail", "echo Hi. | mail -s 'from mail' bob@example.net", "Subject: from mail", "Hi."),
    "cron": ("cron", CRON, "Subject: Cron <root@", "the job says: Zo"),
}


def why_not(program: str) -> str | None:
    """Why the scenario cannot run; None: it can."""
    if shutil.which(program, path="/usr/sbin:/usr/bin:/bin") is None or not SENDMAIL.exists():
        return "it is not installed; run tests/install-peers"
    return None


@pytest.fixture(scope="module", autouse=True)
def namespaces() -> None:
    allowed = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    if allowed.returncode:
        pytest.skip("unshare(1) is not allowed here")


@needs_root
@pytest.mark.parametrize("name", PROGRAMS)
@ensureDeferred
async def test_a_program_sends_its_mail(relay: Relay, hop: LoopbackServer, name: str) -> None:
    program, script, field, body = PROGRAMS[name]
    require(program, why_not(program))
    relay.write(
        "relay.toml",
        f"""
        name = "relay.example.org"
        queue = "queue"
        [[smarthost]]
        url = "smtp+starttls://jane@127.0.0.1:{hop.port}"
        password-file = "password"
        ca-file = "{hop.ca_file}"
        """,
    )
    relay.start("--config", "relay.toml")
    await deferToThread(relay.up)
    ours = relay.write(
        "sendmail",
        f'#!/bin/sh\nTWISTED_SENDMAIL_SPOOL={relay.queue} exec {BIN}/twisted-sendmail-sendmail "$@"\n',
        0o755,
    )
    done = await deferToThread(
        subprocess.run,
        ["unshare", "-m", "sh", "-euc", f"mount --bind {ours} {SENDMAIL}\n{script}"],
        cwd=relay.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
        timeout=100,
        check=False,
    )
    # cron was ended after a minute.
    assert (done.returncode, done.stdout) == (124 if name == "cron" else 0, b"")
    message: ReceivedMessage
    (message,) = await hop.wait_for(1, timeout=PATIENCE)
    content = message.content.decode("utf-8", "surrogateescape")
    assert [str(each) for each in message.recipients] == ["bob@example.net"]
    assert f"\r\n{field}" in content
    assert body in content.partition("\r\n\r\n")[2]
    assert "(twisted_sendmail, invoked by uid 0)" in content
    await deferToThread(relay.end)
