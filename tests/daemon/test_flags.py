"""Flags have the same effect as the keys of a file."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.python.usage import UsageError

from tests.daemon.conftest import PASSWORD, Folder
from tests.names import Configuration, ConfigurationError
from twisted_sendmail.daemon.config import configuration_of
from twisted_sendmail.daemon.tap import COMMAND_LINE, FLAGS, Options


def parsed(*words: str) -> Options:
    options: Any = cast("Any", Options)()
    options.parseOptions(list(words))
    return cast("Options", options)


def read(folder: Folder, *words: str) -> Configuration:
    tree = parsed(*words).tree
    return configuration_of(tree, folder.path, COMMAND_LINE, folder.reactor)


def test_the_simple_case(folder: Folder) -> None:
    configuration = read(
        folder,
        *("--smarthost", "smtp+starttls://user@host", "--password-file", "password"),
        *("--listen", "tcp:127.0.0.1:2525", "--queue", "q"),
        *("--ca-file=ca.pem", "--admin=tcp:127.0.0.1:8025", "--name=relay.example.net"),
    )
    (route,) = configuration.relay.routes
    (server,) = route.servers
    assert ("host", 587, str(folder.path / "ca.pem")) == (
        server.host,
        server.port,
        str(server.trust.ca_file),
    )
    assert (folder.path / "q", "relay.example.net") == (configuration.queue, configuration.name)
    assert ["tcp:2525:interface=127.0.0.1"] == [
        listener.endpoint.description for listener in configuration.listeners
    ]
    assert configuration.admin is not None


def test_a_flag_belongs_to_the_smarthost_or_listener_before_it(folder: Folder) -> None:
    tree = parsed(
        *("--password-file", "first", "--smarthost", "smtps://a@first"),
        *("--smarthost", "smtps://b@second", "--password-file", "second", "--ca-file", "ca"),
        *("--smarthost", "smtp://third"),
        *("--trusted", "10.0.0.0/8,unix", "--listen", "tcp:1"),
        *("--listen", "tcp:2", "--certificate", "c", "--key", "k"),
        *("--queue", "q", "--local-mail-to", "admin@example.org"),
    ).tree
    assert {
        "queue": "q",
        "smarthost": [
            {"url": "smtps://a@first", "password-file": "first"},
            {"url": "smtps://b@second", "password-file": "second", "ca-file": "ca"},
            {"url": "smtp://third"},
        ],
        "listen": [
            {"endpoint": "tcp:1", "trusted": ["10.0.0.0/8", "unix"]},
            {"endpoint": "tcp:2", "certificate": "c", "key": "k"},
        ],
        "rewrite": {"local-mail-to": "admin@example.org"},
    } == tree


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--queue", "q"], "the command line: --smarthost: missing; give it a url"),
        (
            ["--smarthost=smtp://h", "--smarthost=smtps://j@h", "--queue=q"],
            "the command line: --password-file: there is no password for j; give password-file",
        ),
        (
            ["--password-file=password", "--queue=q"],
            "the command line: --smarthost: missing; ",
        ),
        (
            ["--smarthost=smtp://h", "--queue=q", "--listen=tcp:0", "--trusted=10.1.1.1/8"],
            "the command line: --trusted: '10.1.1.1/8' is no network; ",
        ),
        (
            ["--smarthost=smtp://h", "--queue=q", "--admin=tcp:0"],
            "the command line: --admin: other hosts could read senders and recipients; ",
        ),
    ],
)
def test_a_mistake_names_the_flag(folder: Folder, words: list[str], line: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(folder, *words)
    assert str(caught.value).startswith(line)


def test_every_flag_is_in_the_help() -> None:
    shown = str(parsed())
    assert [] == [flag for flag in FLAGS if f"--{flag}" not in shown]


def test_an_unknown_flag_is_a_usage_error_without_its_value() -> None:
    with pytest.raises(UsageError) as caught:
        parsed(f"--pasword={PASSWORD}")
    assert PASSWORD not in str(caught.value)
