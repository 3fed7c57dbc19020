"""``mailq`` and ``sendmail -q``: the two things operators have always done with the queue."""

from __future__ import annotations

import os
import time
from itertools import chain
from pathlib import Path

from twisted_sendmail.cli import mailq
from twisted_sendmail.cli.terminal import say
from twisted_sendmail.queue import QueueAction, Selection, SQLiteStore, id_number, id_text, wake


def print_queue(directory: Path, which: tuple[tuple[str, str], ...]) -> int:
    """``-bp``: the exit status.

    :param which: see ``Invocation.flush``.
    :raises QueueError: it cannot be read.
    """
    meant = selection(which)
    with SQLiteStore(directory) as store, store.transaction(write=False, doing="be read"):
        messages = chain.from_iterable(store.pages(meant)) if meant is not None else ()
        for line in mailq.lines(messages):
            say(line)
    return os.EX_OK


def flush(directory: Path, which: tuple[tuple[str, str], ...]) -> int:
    """``-q``: everything that is meant is due now; the exit status.

    :param which: see ``Invocation.flush``.
    :raises QueueError: it cannot be changed.
    """
    meant = selection(which)
    if meant is not None:
        with SQLiteStore(directory) as store, store.transaction(doing="flush messages"):
            store.act(QueueAction.FLUSH, meant, time.time())
        wake(directory)
    return os.EX_OK


def selection(which: tuple[tuple[str, str], ...]) -> Selection | None:
    """What ``-qI``, ``-qR`` and ``-qS`` mean together; None: no message can be meant."""
    ids: list[str] = []
    given: dict[str, str] = {}
    for letter, value in which:
        if letter != "I":
            given[letter] = value
        elif (number := id_number(value)) is not None:
            ids.append(id_text(number))
    if not ids and any(letter == "I" for letter, _ in which):
        return None
    return Selection(ids=tuple(ids), recipient=given.get("R"), sender=given.get("S"))
