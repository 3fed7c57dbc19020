"""`twisted-sendmail password` prints one line for a password file."""

from __future__ import annotations

import re

import pytest

from tests.cli.shell import PASSWORD, Shell
from twisted_sendmail import PasswordFile

ENTRY = re.compile(
    r"jane:SCRAM-SHA-256\$(\d+):[A-Za-z0-9+/=]{24}\$[A-Za-z0-9+/=]{44}:[A-Za-z0-9+/=]{44}\n"
)


def test_an_entry_has_the_iterations_that_every_client_supports(shell: Shell) -> None:
    done = shell.run_now("password", "jane", TWISTED_SENDMAIL_PASSWORD=PASSWORD)
    match = ENTRY.fullmatch(done.out)
    assert match
    assert (done.status, match[1], done.err) == (0, "65536", "")
    accounts = PasswordFile(shell.write("accounts", done.out.encode(), 0o600), None)
    assert accounts.warning is None


def test_more_iterations_print_a_warning(shell: Shell) -> None:
    shell.write("password", PASSWORD.encode() + b"\n", 0o600)
    done = shell.run_now(
        *["password", "jane", "--password-file", "password", "--iterations", "70000"]
    )
    match = ENTRY.fullmatch(done.out)
    assert match
    assert (done.status, match[1], len(done.err.splitlines())) == (0, "70000", 1)
    assert "warning: clients that use Cyrus SASL, such as Postfix, accept 65536" in done.err


def test_an_entry_for_another_hash_adds_its_mechanism(shell: Shell) -> None:
    lines = [
        shell.run_now("password", "jane", "--hash", name, TWISTED_SENDMAIL_PASSWORD=PASSWORD).out
        for name in ("sha256", "sha1")
    ]
    path = shell.write("accounts", "".join(lines).encode(), 0o600)
    assert PasswordFile(path, None).mechanisms == (
        *("SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1"),
        *("PLAIN", "LOGIN"),
    )
    # John has no keys for SHA-1.
    john = shell.run_now("password", "john", TWISTED_SENDMAIL_PASSWORD=PASSWORD).out
    path = shell.write("accounts", "".join([*lines, john]).encode(), 0o600)
    assert "SCRAM-SHA-1" not in PasswordFile(path, None).mechanisms


def test_sha512_needs_more_iterations(shell: Shell) -> None:
    done = shell.run_now(
        *["password", "jane", "--hash", "sha512", "--iterations", "4096"],
        TWISTED_SENDMAIL_PASSWORD=PASSWORD,
    )
    assert (done.status, done.out) == (64, "")
    assert "with sha512 give 10000 or more" in done.err


@pytest.mark.parametrize("count", ["0", "4095", "x", "99999999999", "-1", "1e5"])
def test_an_invalid_number_of_iterations_is_refused(shell: Shell, count: str) -> None:
    done = shell.run_now(
        "password", "jane", f"--iterations={count}", TWISTED_SENDMAIL_PASSWORD=PASSWORD
    )
    assert (done.status, done.out, len(done.err.splitlines())) == (64, "", 1)


@pytest.mark.parametrize("user", ["", "a:b", " a", "#a"])
def test_a_user_name_that_would_break_the_file_is_refused(shell: Shell, user: str) -> None:
    done = shell.run_now("password", user, TWISTED_SENDMAIL_PASSWORD=PASSWORD)
    assert (done.out, len(done.err.splitlines())) == ("", 1)
    assert done.status in {64, 65}


def test_without_a_password_the_error_names_the_ways_to_give_one(shell: Shell) -> None:
    done = shell.run_now("password", "jane")
    assert (done.status, done.out, "use --password-file" in done.err) == (64, "", True)
