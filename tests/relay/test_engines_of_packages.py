"""A package that is installed brings an engine for URLs of its own: relay, configuration and commands use it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.names import QueueUnusable
from tests.relay.world import SENDER, World
from twisted_sendmail.cli.main import main
from twisted_sendmail.daemon.config_types import InvalidValue, queue_place
from twisted_sendmail.queue import check_queue_place, open_queue, open_store, shown_place

_ENGINE = """
from twisted_sendmail.queue.sqlite.store import SQLiteStore

def store(url):
    return SQLiteStore(url.partition("://")[2].partition("@")[2].partition("?")[0])
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a queue for an engine whose package is installed in a directory of this test."""
    packages = tmp_path / "packages"
    description = packages / "an_engine-1.dist-info"
    description.mkdir(parents=True)
    (description / "METADATA").write_text("Metadata-Version: 2.1\nName: an_engine\nVersion: 1\n")
    (description / "entry_points.txt").write_text(
        "[twisted_sendmail.queue]\nengine = an_engine:store\nbroken = an_engine:nothing\n"
    )
    (packages / "an_engine.py").write_text(_ENGINE)
    monkeypatch.syspath_prepend(str(packages))
    monkeypatch.delitem(sys.modules, "an_engine", raising=False)
    return f"engine://user@{tmp_path / 'queue'}?token=geheim"


def test_a_relay_and_the_commands_use_it(
    world: World, place: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert queue_place(place, tmp_path) == place
    host = world.host()
    host.up = False
    relay = world.relay(host, spool=open_queue(world.clock, place))
    queued = world.send(relay, "bob@x.example")
    assert main(["queue", "list", "--queue", place]) == 0
    out, err = capfd.readouterr()
    assert queued.id in out
    assert SENDER in out
    assert "geheim" not in out + err
    world.stop(relay)
    assert main(["queue", "delete", "--queue", place, queued.id]) == 0
    with open_store(place) as store, store.transaction(write=False):
        assert store.count() == 0
    check_queue_place(place)
    assert shown_place(place) == f"engine://{tmp_path / 'queue'}"


@pytest.mark.parametrize(
    ("scheme", "why"),
    [
        ("mysql", "no such database can hold a queue"),
        ("broken", "an_engine:nothing cannot be imported"),
    ],
)
def test_a_url_without_a_usable_engine_is_refused(
    place: str, tmp_path: Path, scheme: str, why: str
) -> None:
    url = f"{scheme}://u:geheim@host/x"
    with pytest.raises(QueueUnusable, match=why) as caught:
        open_store(url)
    assert not caught.value.temporary
    for text in (str(caught.value), shown_place(url)):
        assert "geheim" not in text
    with pytest.raises(InvalidValue, match="password"):
        queue_place(url, tmp_path)
