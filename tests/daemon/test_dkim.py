"""The keys for DKIM in the configuration: one line for each mistake, and read again when they change."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import capturedLogs, formatEvent

from tests.daemon.conftest import SIMPLE, Folder
from tests.dkim_verifier import keys, pem
from twisted_sendmail import SigningUnavailable

RSA, ED = keys()
ONE = """
[[dkim]]
domain = "Example.org"
users = ["*"]
[[dkim.key]]
selector = "s1"
key-file = "key.pem"
"""


@pytest.fixture(autouse=True)
def key_file(folder: Folder) -> Path:
    return folder.write("key.pem", pem(RSA).decode(), 0o600)


def test_both_keys_of_a_domain_sign_for_users_and_accounts(folder: Folder) -> None:
    folder.write("second.pem", pem(ED).decode(), 0o640)
    user = pwd.getpwuid(os.getuid()).pw_name
    read = folder.read(
        f"""{SIMPLE}
        [[dkim]]
        domain = "Example.org"
        users = ["{user}", 1234]
        accounts = ["jane", "bob@example.org"]
        [[dkim.key]]
        selector = "rsa2026"
        key-file = "key.pem"
        [[dkim.key]]
        selector = "ed2026"
        key-file = "second.pem"
        """
    )
    (domain,) = read.relay.dkim
    assert (
        domain.domain,
        domain.users,
        domain.accounts,
        [(key.record_name, key.record) for key in domain.signer.read_keys()],
    ) == (
        "example.org",
        frozenset({os.getuid(), 1234}),
        frozenset({"jane", "bob@example.org"}),
        [(key.record_name, key.record) for key in keys()],
    )
    assert read.relay.dkim == read.cleanup.dkim
    assert "PRIVATE" not in repr(read)


def test_everybody_may_be_allowed(folder: Folder) -> None:
    (domain,) = folder.read(SIMPLE + ONE).relay.dkim
    assert (None, frozenset()) == (domain.users, domain.accounts)
    everybody = ONE.replace("users", "accounts")
    (domain,) = folder.read(SIMPLE + everybody).relay.dkim
    assert (frozenset(), None) == (domain.users, domain.accounts)


def test_a_key_may_be_a_credential(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    text = ONE.replace('key-file = "key.pem"', 'key-credential = "key.pem"')
    (domain,) = folder.read(SIMPLE + text).relay.dkim
    assert [RSA.record] == [key.record for key in domain.signer.read_keys()]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("key.pem", "other.pem"), "dkim.key.key-file: {folder}/other.pem cannot be read: No such file or directory; check the name and its permissions"),
        (('key-file = "key.pem"', ""), "dkim.key.key-file: missing; give key-file or key-credential"),
        (('key-file = "key.pem"', 'key-credential = "k"'), "dkim.key.key-credential: there are no credentials: CREDENTIALS_DIRECTORY is not set; write LoadCredential= in the systemd unit, or use a file"),
        (('"s1"', '"a_b"'), "dkim.key.selector: 'a_b' cannot be a DKIM selector; give letters and digits, such as 2026a: the first label of the record's name"),
        (('selector = "s1"', ""), "dkim.key.selector: missing; this key is required"),
        (("[[dkim.key]]", "[[other]]"), "dkim.key: missing; write [[dkim.key]] with its selector below it"),
        (('["*"]', "[]"), 'dkim.users: nobody may send mail of the domain; name users or accounts, or write users = ["*"]'),
        (('["*"]', '["no-such-user"]'), "dkim.users: there is no user 'no-such-user' on this machine; write the name or the number of a user"),
        (('["*"]', '"root"'), 'dkim.users: the value is a text; write a list such as ["www-data"]'),
        (('"Example.org"', '"a b"'), "dkim.domain: 'a b' is no host name; write it as relay.example.org"),
        (("users", "user"), "dkim.user: there is no such key; did you mean users?"),
        (('key-file = "key.pem"', 'key = "x"'), "dkim.key.key: there is no such key; known here: selector, key-file, key-credential"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(
    folder: Folder, change: tuple[str, str], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    text = ONE.replace(*change)
    if "other" in text and "[[other]]" in text:
        text = text.partition("[[other]]")[0]
    assert complaint.format(folder=folder.path) == folder.complaint(SIMPLE + text)


def test_a_domain_is_written_once(folder: Folder) -> None:
    assert folder.complaint(SIMPLE + ONE + ONE.replace("s1", "s2")) == (
        "dkim#2.domain: there is another [[dkim]] for this domain; "
        "write both keys as [[dkim.key]] below one"
    )


def test_the_number_of_the_key_is_named(folder: Folder) -> None:
    second = '[[dkim.key]]\nselector = "s2"\nkey-file = "none.pem"\n'
    assert folder.complaint(SIMPLE + ONE + second).startswith("dkim.key#2.key-file: ")


@pytest.mark.parametrize(
    ("content", "mode", "complaint"),
    [
        (None, 0o644, "key.pem may be read by everybody; chmod 640 "),
        (None, 0o660, "key.pem may be changed by others than its owner; chmod 640 "),
        ("", 0o600, "it is not a private key in PEM; make one with openssl genrsa 2048"),
        ("-----BEGIN", 0o600, "it is not a private key in PEM; make one with openssl"),
        ("x" * 70_000, 0o600, "the secret is longer than 65536 octets"),
    ],
)
def test_a_file_that_is_no_safe_key_stops_the_start(
    folder: Folder, key_file: Path, content: str | None, mode: int, complaint: str
) -> None:
    if content is not None:
        key_file.write_text(content)
    key_file.chmod(mode)
    line = folder.complaint(SIMPLE + ONE)
    assert line.startswith("dkim.key.key-file: ")
    assert complaint in line


def test_secrets_that_everybody_may_read_can_be_accepted(folder: Folder, key_file: Path) -> None:
    key_file.chmod(0o644)
    assert folder.read(f"world-readable-secrets = true\n{SIMPLE}{ONE}").relay.dkim


def test_a_key_is_read_again_when_its_file_changes(folder: Folder, key_file: Path) -> None:
    (domain,) = folder.read(SIMPLE + ONE).relay.dkim
    assert domain.signer.read_keys()[0] is domain.signer.read_keys()[0]
    key_file.write_bytes(pem(ED))
    assert [ED.record] == [key.record for key in domain.signer.read_keys()]


@pytest.mark.parametrize("damage", ["unlink", "clear", "open"])
def test_a_key_that_cannot_be_read_later_is_an_error_or_a_line_in_the_log(
    folder: Folder, key_file: Path, damage: Any
) -> None:
    (strict,) = folder.read(SIMPLE + ONE).relay.dkim
    lenient = ONE.replace("[[dkim.key]]", "allow-unsigned = true\n[[dkim.key]]")
    (lax,) = folder.read(SIMPLE + lenient).relay.dkim
    octets = key_file.read_bytes()
    if damage == "unlink":
        key_file.unlink()
    elif damage == "clear":
        key_file.write_bytes(b"")
    else:
        key_file.chmod(0o604)
    with pytest.raises(
        SigningUnavailable, match=r"mail of example\.org cannot be signed: "
    ) as caught:
        strict.signer.read_keys()
    assert caught.value.transient
    with capturedLogs() as logged:
        assert [] == lax.signer.read_keys() == lax.signer.read_keys()
    (event,) = logged
    assert formatEvent(event).startswith("mail of example.org goes out unsigned: ")
    key_file.write_bytes(octets)
    key_file.chmod(0o600)
    assert [RSA.record] * 2 == [each.signer.read_keys()[0].record for each in (strict, lax)]
