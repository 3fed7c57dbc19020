"""The manual pages have every option, every key of the configuration and every page of the reference."""

from __future__ import annotations

import re
from pathlib import Path

from tests.cli.commands import all_commands
from twisted_sendmail.daemon.config_schema import all_keys

MAN = Path(__file__).parents[2] / "man"


def _text(name: str) -> str:
    """The words of a page, without the marks of roff."""
    page = (MAN / name).read_text("utf-8").replace("\\-", "-")
    return re.sub(r"\\f(?:.|\([A-Z]{2})|\\[A-Za-z]?", "", page)


def test_the_page_of_the_commands_has_every_option_and_command() -> None:
    text = _text("twisted-sendmail.1")
    words = set().union(*(each.options | each.below for each in all_commands()))
    assert {each for each in words if each not in text} == {"--version"}


def test_the_page_of_the_configuration_has_every_key() -> None:
    text = _text("twisted-sendmail.toml.5")
    keys = {f"{table}.{key}" if table else key for table, key, _, _ in all_keys()}
    assert {each for each in keys if each not in text} == set()
