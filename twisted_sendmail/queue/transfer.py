"""Export and import of a queue: all its messages as one stream, from any engine to any other.

The format: a line of JSON that names it; then for each message a line of JSON with its envelope and
state, its content, a line end, and a line with the SHA-256 of these two; at last a line with the number
of messages.  The columns are those of ``rows``, whose checksum covers what never changes of a message.

An import puts every message on hold, and ends the holds in one transaction at the end, so that an
import that was interrupted can be repeated: no message was tried before, and those that are there are
left as they are.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from twisted_sendmail.queue.errors import MessageDamaged, QueueError
from twisted_sendmail.queue.ids import QueueIds, id_number, id_text
from twisted_sendmail.queue.interface import INLINE_SIZE
from twisted_sendmail.queue.models import QueueAction, Selection, SetAsideReason
from twisted_sendmail.queue.rows import Damaged, decode, encode
from twisted_sendmail.queue.store import PIECE_SIZE, Pieces
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twisted_sendmail.queue.models import QueuedMessage
    from twisted_sendmail.queue.store import Store

FORMAT, VERSION = "twisted_sendmail queue", 1
# Octets of a line, and of the content that is written in one transaction.
_MAX_LINE, _BATCH_SIZE = 64 * 1024 * 1024, 4 * 1024 * 1024
_COLUMNS = [
    "number",
    "arrived",
    "sender",
    "parameters",
    "size",
    "origin",
    "uid",
    "body",
    "pieces",
    "checksum",
    "route",
    "due",
    "attempts",
    "leased",
    "held",
    "expired",
    "doomed",
    "warned",
    "interrupted",
    "aside",
    "age",
]


class Writer(Protocol):
    """A binary file to write to."""

    def write(self, data: bytes, /) -> object:
        """Write all of *data*."""


class Reader(Protocol):
    """A binary file to read from."""

    def read(self, size: int, /) -> bytes:
        """Return at most *size* octets; none at the end."""

    def readline(self, size: int, /) -> bytes:
        """Return one line, or its first *size* octets."""


class InvalidExport(QueueError):
    """The stream is no export of a queue, or a part of it is damaged or missing."""

    temporary = False


@attrs.define
class Exported:
    """Result of an export."""

    #: Number of messages that were written.
    messages: int = 0
    #: Ids of messages whose attempt did not end: a second copy may go out.
    interrupted: list[str] = attrs.Factory(list)
    #: Ids of damaged messages, which were left out.
    damaged: list[str] = attrs.Factory(list)


@attrs.define
class Imported:
    """Result of an import."""

    #: Number of messages that were added.
    messages: int = 0
    #: Number of messages that were in the queue before.
    present: int = 0


# ---------------------------------------------------------------------------------------------------------------------
# Export


def export_queue(store: Store, out: Writer) -> Exported:
    """Write all messages of *store*, which is in a transaction, to *out*.

    A message that is leased is written as interrupted, because no relay runs; one whose removal was
    requested meanwhile is left out.

    :raises QueueError: the queue cannot be read.
    :raises OSError: *out* cannot be written.
    """
    result = Exported()
    _write_line(out, {"format": FORMAT, "version": VERSION})
    for page in store.pages(Selection()):
        for message in page:
            if message.doomed:
                continue
            try:
                if message.aside is SetAsideReason.DAMAGED:
                    raise Damaged
                # Verified before the first octet is written: a part could not be taken back.
                for _ in store.content(message.id):
                    pass
            except (Damaged, MessageDamaged):
                result.damaged.append(message.id)
                continue
            if message.leased:
                result.interrupted.append(message.id)
                message = _interrupted(message)  # noqa: PLW2901
            _write_message(store, message, out)
            result.messages += 1
    _write_line(out, {"messages": result.messages})
    return result


def _interrupted(message: QueuedMessage) -> QueuedMessage:
    return attrs.evolve(message, leased=False, interrupted=message.interrupted + 1)


def _write_message(store: Store, message: QueuedMessage, out: Writer) -> None:
    number = id_number(message.id)
    assert number is not None  # noqa: S101 - the id is the queue's own
    fixed, recipients = encode(message.info, number, message.size, None, 0)
    state = (
        message.info.route,
        message.due,
        message.attempts,
        0,
        int(message.held),
        "expired" if message.expired else None,
        None,
        int(message.warned),
        message.interrupted,
        message.aside and message.aside.value,
        message.age,
    )
    rows = [
        (*row, r.state.value, r.due, r.attempts, r.tried, r.reply, r.status, r.relay)
        for row, r in zip(recipients, message.recipients, strict=True)
    ]
    line = dict(zip(_COLUMNS, fixed + state, strict=True))
    digest = hashlib.sha256(_write_line(out, {"message": line, "recipients": rows}))
    for piece in store.content(message.id):
        digest.update(piece)
        out.write(piece)
    out.write(b"\n")
    _write_line(out, {"sha256": digest.hexdigest()})


def _write_line(out: Writer, value: dict[str, Any]) -> bytes:
    line = json.dumps(value, separators=(",", ":")).encode() + b"\n"
    out.write(line)
    return line


# ---------------------------------------------------------------------------------------------------------------------
# Import


def import_queue(store: Store, file: Reader, seconds: Callable[[], float]) -> Imported:
    """Add the messages of an export to *store*, which is open and in no transaction.

    Each message is added as a whole or not at all.  None is tried before all are added.

    :param seconds: returns seconds since 1970.
    :raises InvalidExport: the stream is damaged or ends too early: nothing of it is tried.
    :raises QueueError: the queue cannot be changed.
    """
    return _Import(store, file, seconds).run()


class _Import:
    def __init__(self, store: Store, file: Reader, seconds: Callable[[], float]) -> None:
        self._store = store
        self._file = file
        self._ids = QueueIds(seconds)
        self._result = Imported()
        # Messages whose hold ends after the import.
        self._on_hold: list[str] = []

    def run(self) -> Imported:
        first = self._line()
        if first.get("format") != FORMAT:
            raise _invalid("it does not begin as an export of a queue")
        if first.get("version") != VERSION:
            raise _invalid(f"its version is not {VERSION}; import it with a newer release")
        end: dict[str, Any] | None = None
        while end is None:
            with self._store.transaction(doing="import messages"):
                end = self._batch()
        if end.get("messages") != self._result.messages + self._result.present:
            raise _invalid("messages are missing")
        with self._store.transaction(doing="import messages"):
            if self._on_hold:
                ids = tuple(self._on_hold)
                self._store.act(QueueAction.RELEASE, Selection(ids=ids), 0.0)
        self._store.announce()
        return self._result

    def _batch(self) -> dict[str, Any] | None:
        """Add messages of some size; return the last line of the stream when it is reached."""
        size = 0
        while size < _BATCH_SIZE:
            line = self._raw_line()
            value = _parsed(line)
            if "message" not in value:
                return value
            message = _message(value)
            size += len(line) + message.size
            digest = hashlib.sha256(line)
            present = self._store.list(Selection(ids=(message.id,)))
            if present:
                for piece in self._pieces(message.size):
                    digest.update(piece)
                self._check(message, digest.hexdigest())
                self._result.present += 1
                # Added by an import that was interrupted.
                added = present[0].held
            else:
                self._add(message, digest)
                self._result.messages += 1
                added = True
            if added and not message.held and message.aside is None:
                self._on_hold.append(message.id)
        return None

    def _add(self, message: QueuedMessage, digest: Any) -> None:
        if message.size <= INLINE_SIZE:
            content: bytes | Pieces = b"".join(self._pieces(message.size))
            digest.update(content)
        else:
            body, count = id_number(self._ids()) or 0, 0
            for piece in self._pieces(message.size):
                digest.update(piece)
                self._store.put_piece(body, count, piece)
                count += 1
            content = Pieces(body, count, message.size)
        self._check(message, digest.hexdigest())
        _ = self._store.put(message.info, content)
        held = message.held or message.aside is None
        self._store.restore(attrs.evolve(message, held=held))

    def _pieces(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self._file.read(min(size, PIECE_SIZE))
            # A pipe returns less.
            while piece and len(piece) < min(size, PIECE_SIZE):
                more = self._file.read(min(size, PIECE_SIZE) - len(piece))
                if not more:
                    break
                piece += more
            if len(piece) < min(size, PIECE_SIZE):
                raise _invalid("it ends in a message")
            size -= len(piece)
            yield piece

    def _check(self, message: QueuedMessage, digest: str) -> None:
        if self._file.read(1) != b"\n" or self._line().get("sha256") != digest:
            raise _invalid(f"message {message.id} is damaged")

    def _raw_line(self) -> bytes:
        line = self._file.readline(_MAX_LINE)
        if not line.endswith(b"\n"):
            raise _invalid("it ends too early" if len(line) < _MAX_LINE else "a line is too long")
        return line

    def _line(self) -> dict[str, Any]:
        return _parsed(self._raw_line())


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise _invalid("a line is not one of an export")
    return value


def _message(value: dict[str, Any]) -> QueuedMessage:
    try:
        row = [value["message"][name] for name in _COLUMNS]
        message = decode(row, value["recipients"])
        if id_text(row[0]) != message.id or message.size < 0:
            raise Damaged
    except (Damaged, LookupError, TypeError):
        name = printable(str(value.get("message"))[:60], 80)
        raise _invalid(f"a message is damaged: {name}") from None
    return message


def _invalid(why: str) -> InvalidExport:
    return InvalidExport(
        "the export cannot be imported",
        detail=why,
        remedy="export the queue again; the messages that were added stay on hold",
    )
