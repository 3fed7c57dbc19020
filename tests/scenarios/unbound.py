"""A private unbound that validates a zone, which is signed here, by a trust anchor."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import dns.dnssec
import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rdatatype
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec
from dns.dnssectypes import Algorithm

from tests.ports import free_ports

#: Seconds. Only an unbound that is broken takes so long.
PATIENCE = 30
_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
_HEAD = """
@ 60 IN SOA ns hostmaster 1 3600 600 86400 60
@ 60 IN NS ns
ns 60 IN A 127.0.0.1
"""
_CONFIGURATION = """
server:
  interface: 127.0.0.1
  port: {port}
  do-ip6: no
  username: ""
  chroot: ""
  directory: "{directory}"
  pidfile: ""
  use-syslog: no
  logfile: ""
  module-config: "validator iterator"
  local-zone: "test." nodefault
  {anchor}
remote-control:
  control-enable: no
"""
_ZONE = """
auth-zone:
  name: "{name}"
  zonefile: "{file}"
  for-downstream: no
  for-upstream: yes
  fallback-enabled: no
"""


def why_not() -> str | None:
    """Why unbound cannot be run here; None if it can."""
    found = shutil.which("unbound", path=_PATH)
    return None if found else "not installed: unbound; run tests/install-peers"


class Unbound:
    """A running unbound with a signed zone, and another that is not signed.

    :param records: of ``signed.test``, as in a zone file.
    :param forged: names in it whose TLSA records are changed after signing.
    :param unsigned: records of ``unsigned.test``.
    """

    def __init__(
        self, directory: Path, records: str, forged: tuple[str, ...] = (), unsigned: str = ""
    ) -> None:
        zone = dns.zone.from_text(_HEAD + records, "signed.test.", relativize=False)
        key = ec.generate_private_key(ec.SECP256R1())
        # A key that signs keys and records.
        public = dns.dnssec.make_dnskey(key.public_key(), Algorithm.ECDSAP256SHA256, 257)
        dns.dnssec.sign_zone(zone, keys=[(key, public)], lifetime=3600)
        for name in forged:
            rdataset = zone.get_rdataset(f"{name}.signed.test.", "TLSA")
            assert rdataset is not None
            (record,) = list(rdataset)
            rdataset.items.clear()
            rdataset.add(record.replace(cert=bytes(reversed(record.cert))))
        ds = dns.dnssec.make_ds("signed.test.", public, "SHA256")
        self._directory = directory
        (directory / "signed.zone").write_text(zone.to_text(relativize=False))
        plain = dns.zone.from_text(_HEAD + unsigned, "unsigned.test.", relativize=False)
        (directory / "unsigned.zone").write_text(plain.to_text(relativize=False))
        self._anchor = f'trust-anchor: "signed.test. DS {ds.to_text()}"'
        (self.port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Unbound:
        file = self._directory / "unbound.conf"
        text = _CONFIGURATION.format(port=self.port, directory=self._directory, anchor=self._anchor)
        for name in ("signed", "unsigned"):
            text += _ZONE.format(name=f"{name}.test", file=self._directory / f"{name}.zone")
        file.write_text(text)
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [shutil.which("unbound", path=_PATH) or "unbound", "-d", "-p", "-c", str(file)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            logged = (self._directory / "log").read_text()
            assert self._process.poll() is None, f"unbound ended at once:\n{logged}"
            assert time.monotonic() < deadline, f"unbound does not answer:\n{logged}"
            time.sleep(0.05)
        return self

    def _answers(self) -> bool:
        query = dns.message.make_query("ns.signed.test.", "A")
        try:
            reply = dns.query.udp(query, "127.0.0.1", port=self.port, timeout=1)
        except (OSError, dns.exception.DNSException):
            return False
        return bool(reply.answer)

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(PATIENCE)
