"""``DropIntake``: mail of local programs, from the drop directory into the queue.

A file is read once, through the same cleanup as all mail. Its key (name, user, inode) is committed
together with the message, and forgotten when the file is gone: after a crash at any point, a file
whose message was committed is removed and not taken again.

The directory is scanned when the relay starts, when the ``sendmail`` command writes to a FIFO, and
every few seconds. Everything that touches the directory runs in a thread. If the queue refuses mail,
the files stay in the directory.
"""

from __future__ import annotations

import pwd
import stat
from collections import deque
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_sendmail.daemon.wakeup_fifo import WakeupFifo
from twisted_sendmail.drop import (
    DIRECTORY_MODE,
    MAX_ENVELOPE,
    DropDirectory,
    DropFileError,
    DropTotals,
    FileKey,
    directory_fault,
    write_settings,
)
from twisted_sendmail.local_users import known_uid, uid_text
from twisted_sendmail.off_reactor import off_reactor
from twisted_sendmail.queue import Cleanup, QueueError, QueueFull
from twisted_sendmail.received import clause, received_field
from twisted_sendmail.smtp import (
    MAX_FIELDS,
    Canonicalizer,
    Envelope,
    HeaderCounter,
    InvalidInput,
    Recipient,
    Repair,
    SendmailError,
    printable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from twisted.internet.interfaces import IDelayedCall

    from twisted_sendmail.daemon.config import Configuration
    from twisted_sendmail.drop import DropEnvelope, DropReader, DropSettings, WaitingFile
    from twisted_sendmail.queue import MessageInfo, Queue, QueuedMessage

#: Seconds between two scans without a notification.
SCAN_INTERVAL = 10.0
#: Seconds after which new mail, of other users perhaps, is looked for although files of the last
#: scan are left.
MAX_SCAN_AGE = 2.0
#: The next scan begins after so many times the duration of the last one, up to so many seconds: users
#: who fill the directory and flood the FIFO do not keep the relay busy.
SCAN_PAUSE, MAX_SCAN_PAUSE = 4, 2.0
#: Lines about bad files between two scans of the timer.
MAX_LOGGED = 20
#: Files, and octets of them, that are read and committed together.
BATCH_FILES, BATCH_SIZE = 64, 1024 * 1024
# Mode of the drop directory until it gets its own, which mkdir cannot set.
_NEW_DIRECTORY_MODE = 0o700
#: Octets of the Received field that the server of ``sendmail -bs`` adds to a message.
MAX_TRACE_SIZE = 64 * 1024

_log = Logger(namespace="twisted_sendmail.daemon.drop")


@attrs.frozen
class _Prepared:
    """A message that was read from a small file."""

    file: WaitingFile
    info: MessageInfo
    octets: bytes


class DropIntake:
    """Takes mail of local programs into *queue*, which is open.

    :param reactor: for time and threads; the FIFO needs an ``IReactorFDSet``.
    """

    def __init__(self, reactor: Any, queue: Queue) -> None:
        self._reactor = reactor
        self._queue = queue
        self._configuration: Configuration | None = None
        self._directory: DropDirectory | None = None
        self._fifo: WakeupFifo | None = None
        self._timer = LoopingCall(self._look_now_and_then)
        self._timer.clock = reactor
        self._passing: Deferred[None] | None = None
        self._look_again = False
        self._not_before = 0.0
        self._delayed: IDelayedCall | None = None
        self._stopping = False
        self._logged = 0
        # Files whose message is in the queue, and that still exist as far as is known.
        self._taken: set[FileKey] = set()
        self._taken_known = False
        self._refused = ""
        #: Files that waited at the last scan, without those taken since; None before it.
        self.totals: DropTotals | None = None
        #: Files whose message was taken and that cannot be removed, with the reason.
        self.stuck: dict[FileKey, str] = {}

    # -- start and stop ------------------------------------------------------------------

    async def check(self, configuration: Configuration) -> None:
        """Check whether :meth:`apply` can succeed, and change nothing.

        :raises SendmailError: the drop directory cannot be used.
        """
        await off_reactor(self._reactor, partial(check_drop_directory, configuration.drop))

    async def apply(self, configuration: Configuration) -> None:
        """Use *configuration* from now on, and write the settings for the ``sendmail`` command.

        :raises SendmailError: the drop directory, or the spool directory, cannot be used, or another
            relay uses it.
        """
        settings = configuration.drop

        def prepare() -> DropDirectory:
            _prepare_directory(settings)
            directory = self._open_directory(settings.directory)
            _write_settings(settings)
            return directory

        self._directory = await off_reactor(self._reactor, prepare)
        self._configuration = configuration

    def start(self) -> None:
        """Scan now, and then again and again; :meth:`apply` has to come first."""
        self._fifo = WakeupFifo(self._reactor, self._settings.spool, self.look)
        self._fifo.open()
        _ = self._timer.start(SCAN_INTERVAL, now=True)

    async def stop(self) -> None:
        """Take no more files; return when the messages that are being taken are in the queue."""
        self._stopping = True
        if self._timer.running:
            self._timer.stop()
        if self._fifo is not None:
            self._fifo.close()
        if self._delayed is not None:
            self._delayed.cancel()
            self._delayed = None
        if self._passing is not None:
            await self._passing
        if self._directory is not None:
            self._directory.close()

    def _look_now_and_then(self) -> None:
        if self._logged > MAX_LOGGED:
            _log.error(
                "{count} more files in {directory} are not taken",
                count=self._logged - MAX_LOGGED,
                directory=self._settings.directory,
            )
        self._logged = 0
        self.look()

    def look(self) -> None:
        """Look for mail, at once or soon."""
        if self._stopping or self._delayed is not None:
            return
        if self._passing is not None:
            self._look_again = True
            return
        delay = self._not_before - self._reactor.seconds()
        if 0 < delay <= MAX_SCAN_PAUSE:
            self._delayed = self._reactor.callLater(delay, self._look_now)
        else:
            self._look_now()

    def _look_now(self) -> None:
        self._delayed = None
        passing = Deferred.fromCoroutine(self._pass())
        done: Deferred[None] = Deferred()
        self._passing = done
        _ = passing.addErrback(self._log_failed).addBoth(self._passed, done)

    def _passed(self, _: object, done: Deferred[None]) -> None:
        self._passing = None
        done.callback(None)
        if self._look_again:
            self._look_again = False
            self.look()

    def _log_failed(self, failure: Any) -> None:
        if failure.check(OSError, SendmailError):
            self._log_refused(str(failure.value))
        else:
            _log.failure("mail of local programs cannot be taken", failure)

    @property
    def _settings(self) -> DropSettings:
        return self._now_configured.drop

    @property
    def _now_configured(self) -> Configuration:
        assert self._configuration is not None  # noqa: S101 - see start()
        return self._configuration

    @property
    def _limit(self) -> int:
        """Octets of a file."""
        return self._now_configured.limits.message_size + MAX_ENVELOPE

    # -- one pass ------------------------------------------------------------------------

    async def _pass(self) -> None:
        """Scan once, and take what was found."""
        directory = self._directory = await off_reactor(
            self._reactor, partial(self._open_directory, self._settings.directory)
        )
        if not self._taken_known:
            self._taken |= _parsed_keys(await self._queue.taken_files())
            self._taken_known = True
        await self._remove_taken(directory)
        self._look_again = False
        began = self._reactor.seconds()
        scan = await off_reactor(
            self._reactor, partial(directory.scan, self._limit, frozenset(self._taken))
        )
        now = self._reactor.seconds()
        self._not_before = now + min(SCAN_PAUSE * (now - began), MAX_SCAN_PAUSE)
        self.totals = scan.totals
        for bad in scan.bad:
            self._log_bad(bad.key, bad.why)
        files = deque(scan.files)
        while files and not self._stopping:
            if self._look_again and self._reactor.seconds() - now > MAX_SCAN_AGE:
                return
            if not await self._take(directory, _next_batch(files)):
                return
        if scan.more:
            self._look_again = True

    async def _take(self, directory: DropDirectory, batch: list[WaitingFile]) -> bool:
        """Take some files; False if the queue refuses mail."""
        if not await self._has_space(sum(file.size for file in batch)):
            # There may be enough for smaller files.
            return await self._has_space(0)
        if len(batch) == 1 and batch[0].size > BATCH_SIZE:
            await self._end_commit(
                directory, batch[0], Deferred.fromCoroutine(self._take_large(directory, batch[0]))
            )
        else:
            await self._take_small(directory, batch)
        await self._remove_taken(directory)
        return self._taken_known

    async def _has_space(self, size: int) -> bool:
        try:
            await self._queue.check_space(size)
        except QueueFull as e:
            self._log_refused(str(e))
            return False
        return True

    async def _take_small(self, directory: DropDirectory, batch: list[WaitingFile]) -> None:
        """Read files together, and commit their messages together."""
        ids = [self._queue.new_id() for _ in batch]

        def read() -> list[_Prepared | None]:
            return [self._read(directory, *each) for each in zip(batch, ids, strict=True)]

        commits = []
        for each in await off_reactor(self._reactor, read):
            if each is not None:
                intake = self._queue.intake()
                # If this fails, the commit does.
                waiting = intake.write(each.octets)
                if waiting is not None:
                    _ = waiting.addErrback(lambda _: None)
                commits.append((each.file, intake.commit(each.info)))
        for file, commit in commits:
            await self._end_commit(directory, file, commit)

    async def _take_large(
        self, directory: DropDirectory, file: WaitingFile
    ) -> QueuedMessage | None:
        """Read and queue a file in pieces; None if it cannot be taken."""
        reading = _Reading(self._now_configured, directory, file, self._queue.new_id(), self._now())
        pieces = reading.octets()
        next_piece = partial(self._guarded, directory, file, lambda: next(pieces, b""))
        intake = self._queue.intake()
        try:
            while piece := await off_reactor(self._reactor, next_piece):
                waiting = intake.write(piece)
                if waiting is not None:
                    await waiting
        except BaseException:
            intake.abort()
            raise
        finally:
            pieces.close()
        if reading.info is None:
            intake.abort()
            return None
        return await intake.commit(reading.info)

    async def _end_commit(
        self, directory: DropDirectory, file: WaitingFile, commit: Deferred[Any]
    ) -> None:
        try:
            message = await commit
        except QueueError as e:
            # It may be in the queue all the same: ask the queue before the next scan.
            self._taken_known = False
            if e.temporary:
                self._log_refused(str(e))
            else:
                directory.refuse(file)
                self._log_bad(file.key, str(e))
                self._look_again = True
        else:
            if message is not None:
                self._taken.add(file.key)
                self._refused = ""
                if self.totals is not None:
                    self.totals = self.totals.without(file)

    async def _remove_taken(self, directory: DropDirectory) -> None:
        """Remove the files that were taken, and forget their keys when they are gone."""
        if not self._taken:
            return
        taken = tuple(self._taken)
        left = dict(await off_reactor(self._reactor, partial(directory.remove, taken)))
        gone = [key for key in taken if key not in left]
        for key, error in left.items():
            if key not in self.stuck:
                self.stuck[key] = error.strerror or str(error)
                _log.error(
                    "{directory}/{name} of uid {uid} was taken and cannot be removed: {why}; "
                    "it is not taken again: remove it",
                    directory=directory.path,
                    name=key.name,
                    uid=key.uid,
                    why=self.stuck[key],
                )
        if gone:
            await self._queue.forget_files([str(key) for key in gone])
            self._taken.difference_update(gone)
            for key in gone:
                self.stuck.pop(key, None)

    # -- in a thread -----------------------------------------------------------------------

    def _open_directory(self, path: str) -> DropDirectory:
        """Return the directory at *path*: another one, if it was replaced.

        :raises OSError: it cannot be opened.
        :raises SendmailError: another relay uses it.
        """
        directory = self._directory
        if directory is not None:
            if directory.is_current():
                return directory
            directory.close()
            self._directory = None
        directory = DropDirectory(path)
        if not directory.lock():
            directory.close()
            raise SendmailError(
                f"the drop directory {printable(path, 300)} is in use",
                detail="another relay takes the mail in it",
                remedy="stop that relay, or give each a spool of its own",
            )
        return directory

    def _now(self) -> float:
        return float(self._reactor.seconds())

    def _read(self, directory: DropDirectory, file: WaitingFile, id_: str) -> _Prepared | None:
        """Read a small file; None if it cannot be taken."""
        reading = _Reading(self._now_configured, directory, file, id_, self._now())
        octets = self._guarded(directory, file, lambda: b"".join(reading.octets()))
        return None if reading.info is None else _Prepared(file, reading.info, octets)

    def _guarded(
        self, directory: DropDirectory, file: WaitingFile, read: Callable[[], bytes]
    ) -> bytes:
        """Return what *read* returns, or nothing if the file cannot be taken."""
        try:
            return read()
        except FileNotFoundError:
            return b""  # its owner removed it
        except (DropFileError, InvalidInput) as e:
            why = str(e)
        except OSError as e:
            why = e.strerror or type(e).__name__
        directory.refuse(file)
        self._log_bad(file.key, why)
        return b""

    # -- log -------------------------------------------------------------------------------

    def _log_bad(self, key: FileKey, why: str) -> None:
        self._logged += 1
        if self._logged > MAX_LOGGED:
            return
        _log.error(
            "{directory}/{name} of uid {uid} is not taken: {why}",
            directory=self._settings.directory,
            name=printable(key.name.encode("utf-8", "surrogateescape"), 80),
            uid=key.uid,
            why=why,
        )

    def _log_refused(self, why: str) -> None:
        if why != self._refused:
            self._refused = why
            _log.error(
                "mail of local programs waits in {directory}: {why}",
                directory=self._settings.directory,
                why=why,
            )


class _Reading:
    """One file, being read through the cleanup; for a thread."""

    def __init__(
        self,
        configuration: Configuration,
        directory: DropDirectory,
        file: WaitingFile,
        id_: str,
        now: float,
    ) -> None:
        self._configuration = configuration
        self._directory = directory
        self._file = file
        self._id = id_
        self._now = now
        #: The record to be committed; None until all octets were read.
        self.info: MessageInfo | None = None

    def octets(self) -> Generator[bytes]:
        """Yield the content to be queued, in pieces that are not empty.

        :raises DropFileError: the file cannot be taken.
        :raises InvalidInput: its message cannot be queued.
        :raises OSError: it cannot be read.
        """
        limits = self._configuration.limits
        reader = self._directory.open(self._file.key, limits.message_size + MAX_ENVELOPE)
        try:
            # The server of ``sendmail -bs`` has added a Received field.
            if reader.size > limits.message_size + MAX_TRACE_SIZE:
                raise DropFileError(
                    f"it has {reader.size} octets, and the limit is {limits.message_size}"
                )
            cleanup = self._cleanup(reader, limits.recipients)
            held = self._trace()
            for piece in self._checked(reader, limits.header_size + MAX_TRACE_SIZE):
                if octets := cleanup.feed(held + piece):
                    yield octets
                held = b""
            if octets := cleanup.feed(held) + cleanup.finish():
                yield octets
        finally:
            reader.close()
        self.info = cleanup.message_info()

    def _checked(self, reader: DropReader, max_header: int) -> Generator[bytes]:
        """Yield the content with CRLF line ends, if its header is one that a server accepts."""
        canonical = None if reader.envelope.binary else Canonicalizer(Repair.REPAIR)
        header = HeaderCounter(max_header, MAX_FIELDS + 1)
        for piece in reader.pieces():
            octets = piece if canonical is None else canonical.feed(piece)
            header.feed(octets)
            _check_header(header)
            yield octets
        header.finish()
        _check_header(header)
        if canonical is not None:
            yield canonical.finish()

    def _cleanup(self, reader: DropReader, max_recipients: int) -> Cleanup:
        given, policy = reader.envelope, self._configuration.cleanup
        if len(given.recipients) > max_recipients:
            raise DropFileError(f"it has more than {max_recipients} recipients")
        uid = known_uid(self._file.key.uid)
        return Cleanup(
            # Programs leave From, Date and Message-ID to sendmail.
            attrs.evolve(policy, complete=True),
            _envelope(given),
            self._id,
            self._now,
            origin=f"{_login(uid)} ({uid_text(uid)}) local",
            uid=uid,
            local=True,
            binary=given.binary,
            own_hops=1,
            written=min(max(reader.status.st_mtime, 0.0), self._now),
            from_name=given.full_name,
            file_key=str(self._file.key),
        )

    def _trace(self) -> bytes:
        user = uid_text(known_uid(self._file.key.uid))
        by = clause("by", self._configuration.name, f"twisted_sendmail, invoked by {user}")
        return received_field([by, clause("id", self._id)], self._now)


def _check_header(header: HeaderCounter) -> None:
    if header.too_long or header.too_many_fields:
        raise DropFileError("its header is too long, or has too many fields")


def _envelope(given: DropEnvelope) -> Envelope:
    """Parse an envelope.

    :raises InvalidInput: a value cannot be used.
    """
    recipients = [
        Recipient(each.address, each.notify.split(",") if each.notify else (), each.orcpt)
        for each in given.recipients
    ]
    return Envelope(
        given.sender or None,
        recipients,
        ret=given.ret,
        envid=given.envid,
        require_tls=given.require_tls,
    )


def _next_batch(files: deque[WaitingFile]) -> list[WaitingFile]:
    """Remove the next files from *files*; a large one is alone."""
    batch = [files.popleft()]
    size = batch[0].size
    while files and len(batch) < BATCH_FILES and size + files[0].size <= BATCH_SIZE:
        batch.append(files.popleft())
        size += batch[-1].size
    return batch


def _parsed_keys(texts: Sequence[str]) -> set[FileKey]:
    keys = set()
    for text in texts:
        try:
            keys.add(FileKey.parse(text))
        except ValueError:
            _log.error("the queue holds a damaged key of a file: {text}", text=printable(text, 100))
    return keys


def _prepare_directory(settings: DropSettings) -> None:
    """Make the drop directory if it is to be ours alone, and check it.

    :raises SendmailError: it cannot be used.
    """
    if settings.private:
        # Only our own directory: a shared one is made by root.
        path = Path(settings.directory)
        try:
            with suppress(FileExistsError):
                path.mkdir(mode=_NEW_DIRECTORY_MODE)
            # Also one whose maker was killed before this.
            if stat.S_IMODE(path.lstat().st_mode) == _NEW_DIRECTORY_MODE:
                path.chmod(DIRECTORY_MODE)
        except OSError as e:
            raise SendmailError(
                f"the drop directory {printable(settings.directory, 300)} cannot be made",
                detail=e.strerror or "",
                remedy="set spool to a directory in which root makes it",
            ) from None
    check_drop_directory(settings)


def _write_settings(settings: DropSettings) -> None:
    """Write the settings for the ``sendmail`` command.

    :raises SendmailError: the spool directory cannot be written to.
    """
    try:
        write_settings(settings)
    except OSError as e:
        raise SendmailError(
            f"the settings of the sendmail command cannot be written to {settings.spool}",
            detail=e.strerror or "",
            remedy="give the directory to the relay's user",
        ) from None


def check_drop_directory(settings: DropSettings, owner: tuple[int, int] | None = None) -> None:
    """Check owner, group, mode and file system of the drop directory.

    :param owner: the uid and gid of the relay; None: those of this process.
    :raises SendmailError: the relay cannot use it.
    """
    fault = directory_fault(settings.directory, owner)
    if fault is not None:
        why, remedy = fault
        what = f"the drop directory {printable(settings.directory, 300)} cannot be used"
        raise SendmailError(what, detail=why, remedy=remedy)


@lru_cache(maxsize=1024)
def _login(uid: int | None) -> str:
    try:
        return "unknown" if uid is None else printable(pwd.getpwuid(uid).pw_name, 60)
    except KeyError:
        return "unknown"
