"""Scripted faults of a test server, in any combination.

::

    faults=[refuse_recipient("x@example.net"), close("dot"), single_bytes()]

A fault happens at a *moment*: a command (``EHLO``, ``STARTTLS``, ``AUTH``, ``MAIL``, ``RCPT``,
``DATA``, ``BDAT``, ``RSET``, ``NOOP``, ``QUIT``), ``greeting``, ``content`` (while it is received) or
``dot`` (the whole content has been received, by DATA or BDAT). A message that is refused at the
dot is not recorded. If the connection ends or stalls at the dot, the server has accepted the
message and the client is in doubt. ``nth`` selects the first, second … time, over all
connections; without it the fault happens each time.
"""

from __future__ import annotations

import enum
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from attrs import fields, frozen
from twisted.internet.protocol import connectionDone

from twisted_sendmail.server import SMTPServerFactory, SMTPServerProtocol
from twisted_sendmail.smtp import (
    InvalidInput,
    Reply,
    ServerSession,
    ServerState,
    Verb,
    check_positive,
    check_type,
)
from twisted_sendmail.testing.authority import Authority

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import (
        IDelayedCall,
        IOpenSSLServerConnectionCreator,
        IReactorTime,
    )
    from twisted.python.failure import Failure

    from twisted_sendmail.server import Accounts, ConnectionInfo, Receiver, ServerTimeouts
    from twisted_sendmail.smtp import Bdat, ContentReader, ServerHandler, ServerSettings, StartTLS

_MOMENTS_WITH_ADDRESS = frozenset({"MAIL", "RCPT"})
MOMENTS = frozenset(
    {
        "greeting", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "BDAT",
        "content", "dot", "RSET", "NOOP", "QUIT",
    }
)  # fmt: skip


class FaultAction(enum.Enum):
    """An action in place of a reply."""

    CLOSE = "close the connection"
    RESET = "reset the connection"
    STALL = "stop replying and reading"

    def __repr__(self) -> str:
        return str(self)


@frozen(repr=False)
class Fault:
    """One fault, made by the functions below."""

    at: str = ""
    reply: Reply | None = None
    action: FaultAction | None = None
    #: Octets in place of the reply.
    instead: bytes | None = None
    #: Octets after the reply, in the same segment.
    injected: bytes = b""
    #: Seconds before the reply.
    delay: float = 0
    address: str | None = None
    nth: int | None = None
    #: Octets after which the connection is closed.
    close_after: int | None = None
    single_bytes: bool = False
    #: Names of the certificate, time until it expires, and whether the server's authority signs it.
    certificate: tuple[Sequence[str], timedelta, bool] | None = None
    #: EHLO keywords that are not offered.
    without: tuple[str, ...] = ()

    def __repr__(self) -> str:
        given = (
            f"{each.name}={getattr(self, each.name)!r}"
            for each in fields(Fault)
            if getattr(self, each.name) != each.default
        )
        return f"Fault({', '.join(given)})"

    def __attrs_post_init__(self) -> None:
        if self.at != "" and self.at not in MOMENTS:
            raise InvalidInput(
                f"{self.at!r} is not a moment of a session",
                remedy=f"use one of {', '.join(sorted(MOMENTS))}",
            )
        if self.at == "content" and self.action is None and self.reply is None:
            raise InvalidInput(
                "content is no command, and has no reply of its own",
                remedy="use dot for the reply to the content",
            )
        if self.address is not None:
            check_type("address", self.address, str, "text such as b@example.net, or None")
            if self.at not in _MOMENTS_WITH_ADDRESS:
                raise InvalidInput(
                    f"{self.at} has no address", remedy="leave address out, or use MAIL or RCPT"
                )
        if self.nth is not None:
            check_positive("nth", self.nth, "a whole number from 1, or None", whole=True)


def _reply(text: str) -> Reply:
    check_type("a reply", text, str, "text such as 550 5.1.1 No such user")
    code, _, rest = text.partition(" ")
    if not (code.isascii() and code.isdigit() and len(code) == 3):
        raise InvalidInput(f"'{text}' is not a reply", remedy="write it as 550 5.1.1 No such user")
    return Reply(int(code), (rest,))


def refuse(at: str, reply: str, *, address: str | None = None, nth: int | None = None) -> Fault:
    """Send *reply*, such as ``"451 4.3.0 Try later"``; for *address* only, if given."""
    return Fault(at, reply=_reply(reply), address=address, nth=nth)


def refuse_recipient(
    address: str, reply: str = "550 5.1.1 No such user", *, nth: int | None = None
) -> Fault:
    """Refuse this recipient."""
    return refuse("RCPT", reply, address=address, nth=nth)


def close(at: str, *, nth: int | None = None) -> Fault:
    """Close the connection in place of the reply."""
    return Fault(at, action=FaultAction.CLOSE, nth=nth)


def reset(at: str, *, nth: int | None = None) -> Fault:
    """Reset the connection in place of the reply."""
    return Fault(at, action=FaultAction.RESET, nth=nth)


def stall(at: str, *, nth: int | None = None) -> Fault:
    """Send no reply, and read no more.

    A client that pipelines waits for the replies to MAIL, RCPT and DATA together; add
    ``without("PIPELINING")`` where it is to wait for the reply at *at* alone.
    """
    return Fault(at, action=FaultAction.STALL, nth=nth)


def delay(at: str, seconds: float, *, address: str | None = None, nth: int | None = None) -> Fault:
    """Send the reply so many seconds later, and read nothing meanwhile.

    The seconds are those of the server's clock. ``delay("greeting", 5)`` is a server that accepts
    connections slowly. At ``dot`` the server has accepted the message before the delay. Use
    ``without("PIPELINING")`` as with :func:`stall`.
    """
    check_positive("a delay", seconds, "seconds above zero")
    return Fault(at, delay=seconds, address=address, nth=nth)


def send(at: str, octets: bytes, *, nth: int | None = None) -> Fault:
    """Send *octets* in place of the reply."""
    check_type("octets", octets, bytes, "bytes")
    return Fault(at, instead=octets, nth=nth)


def inject(at: str, octets: bytes, *, nth: int | None = None) -> Fault:
    """Send *octets* directly after the reply, as an attacker does after the one to ``STARTTLS``."""
    check_type("octets", octets, bytes, "bytes")
    return Fault(at, injected=octets, nth=nth)


def close_after(octets: int) -> Fault:
    """Close each connection after the server has sent so many octets."""
    check_positive("octets", octets, "a whole number above zero", whole=True)
    return Fault(close_after=octets)


def single_bytes() -> Fault:
    """Send everything octet by octet."""
    return Fault(single_bytes=True)


def without(*keywords: str) -> Fault:
    """Do not offer these EHLO keywords, such as ``STARTTLS``, ``PIPELINING`` or ``AUTH``."""
    for keyword in keywords:
        check_type("a keyword", keyword, str, "text such as PIPELINING")
    return Fault(without=tuple(keyword.upper() for keyword in keywords))


_TOMORROW = timedelta(days=1)


def expired_certificate() -> Fault:
    """Use a certificate that expired yesterday."""
    return Fault(certificate=(("localhost", "127.0.0.1"), -_TOMORROW, True))


def certificate_for(*names: str) -> Fault:
    """Use a certificate for other names; for no name, if none is given."""
    for name in names:
        check_type("a name", name, str, "text such as mail.example.org")
    return Fault(certificate=(names, _TOMORROW, True))


def unknown_authority() -> Fault:
    """Use a certificate of another authority than ``ca_file``."""
    return Fault(certificate=(("localhost", "127.0.0.1"), _TOMORROW, False))


class FaultPlan:
    """The faults of one server, and how often each moment has come.

    :param faults: the first one counts of two that are due at the same time.
    """

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self.set(faults)

    def set(self, faults: Iterable[Fault]) -> None:
        """Follow these faults from now on, and count from zero.

        :raises InvalidInput: *faults* is not a list of faults.
        """
        check_type("faults", faults, Iterable, "a list of calls of twisted_sendmail.testing.faults")
        faults = tuple(faults)
        for each in faults:
            check_type("a fault", each, Fault, "a call of twisted_sendmail.testing.faults")
        self.faults = faults
        self._times: Counter[int] = Counter()
        sizes = [f.close_after for f in self.faults if f.close_after is not None]
        #: Octets after which connections are closed; None: never.
        self.close_after = min(sizes, default=None)
        #: Send octet by octet.
        self.single_bytes = any(f.single_bytes for f in self.faults)
        #: EHLO keywords that are not offered.
        self.without = frozenset(word for f in self.faults for word in f.without)

    def take(self, moment: str, address: str | None = None) -> Fault | None:
        """Return the fault that is due now, and count the moment."""
        due: Fault | None = None
        for number, fault in enumerate(self.faults):
            if fault.at != moment:
                continue
            if fault.address is not None and fault.address != address:
                continue
            self._times[number] += 1
            if due is None and fault.nth in {None, self._times[number]}:
                due = fault
        return due

    def certificate(self, authority: Authority) -> bytes:
        """Return certificate and key as one PEM text."""
        for fault in self.faults:
            if fault.certificate is not None:
                names, age, known = fault.certificate
                now = datetime.now(timezone.utc)
                signer = authority if known else Authority("unknown authority")
                return signer.issue(names, not_before=now - timedelta(days=30), not_after=now + age)
        return authority.issue()


#: Seconds between octets that are sent one by one.
OCTET_INTERVAL = 0.0001
#: Seconds for earlier replies to arrive before a reset, which would discard them.
RESET_DELAY = 0.05

_MOMENTS = {Verb.GREETING: "greeting", Verb.HELO: "EHLO", Verb.LHLO: "EHLO"}
# By method of the handler.
_MOMENTS_OF_CALLS = {
    "auth": "AUTH",
    "auth_response": "AUTH",
    "mail": "MAIL",
    "rcpt": "RCPT",
    "data": "DATA",
    "chunk": "content",
}


def _delayed(_: object) -> None:
    """Return PENDING while a reply is delayed."""


class FaultySession(ServerSession):
    """Consults the plan before each reply and before each call of the handler."""

    def __init__(
        self, settings: ServerSettings, handler: ServerHandler, plan: FaultPlan, *, tls: bool
    ) -> None:
        #: Read and write nothing more.
        self.dead = False
        #: Reset the connection.
        self.resetting = False
        self._plan = plan
        #: The plan was consulted about the next reply already; ``_due`` is the result.
        self._decided = False
        self._due: Fault | None = None
        self._chunk_fault: Fault | None = None
        #: Octets of the output before a delay, and its seconds.
        self._delay: tuple[int, float] | None = None
        super().__init__(settings, handler, tls=tls)

    def take_delay(self) -> tuple[int, float] | None:
        """Return the octets of the output before a delay, and its seconds; once."""
        delay, self._delay = self._delay, None
        return delay

    def reply_sent(self) -> None:
        """Go on after a delay; call ``run`` after it."""
        if self.pending is _delayed:
            self.pending = None

    def greet(self, reply: Reply | None = None) -> None:
        """Send the greeting, or the fault."""
        fault = self._plan.take("greeting")
        if fault is not None and fault.action is not None:
            self._act(fault.action)
        else:
            planned = None if fault is None else fault.reply
            self._with(fault, super().greet, planned or reply)

    def _with(self, fault: Fault | None, then: Callable[..., None], *args: Any) -> None:
        """Call *then*, and apply *fault* to the reply that it sends."""
        self._decided, self._due = True, fault
        then(*args)
        self._decided = False

    def _ask(self, then: Callable[[Any], None], call: Callable[..., object], *args: Any) -> None:
        moment = _MOMENTS_OF_CALLS.get(call.__name__)
        if moment is None or (moment == "DATA" and self._chunk is not None):
            super()._ask(then, call, *args)
            return
        address = str(args[0]) if moment in {"MAIL", "RCPT"} else None
        fault = self._plan.take(moment, address)
        if fault is not None and fault.action is not None:
            self._act(fault.action)
        elif moment == "content":
            if fault is None or fault.reply is None:
                super()._ask(then, call, *args)
            else:
                self._with(None, self._send_reply, fault.reply)
                self.dead = True
                self.end("fault")
        elif fault is not None and fault.reply is not None:
            # The handler is not called for what the plan refuses.
            self._with(fault, then, fault.reply)
        else:
            super()._ask(lambda answer: self._with(fault, then, answer), call, *args)

    def _note(self, text: str) -> None:
        self.transcript.add("--", f"fault: {text}")
        if self._buffer and "PIPELINING" in self._offered:
            self.transcript.add(
                "--",
                'the client sent more without waiting; add without("PIPELINING") to prevent it',
            )

    def _act(self, action: FaultAction) -> None:
        self._note(action.value)
        self.dead = True
        if action is FaultAction.CLOSE:
            self.end("fault")
            return
        if action is FaultAction.RESET:
            self._abort("fault")
            self.resetting = True
        # Wait for an answer that is never given.
        self.pending = lambda answer: None

    def _write(self, reply: Reply, octets: bytes) -> None:
        if self.dead:
            return
        moment = _MOMENTS.get(self._verb, self._verb.value)
        fault = self._due if self._decided else self._plan.take(moment)
        self._due = None
        if fault is not None and fault.delay:
            self._note(f"wait {fault.delay:g} s")
            self._delay = (len(self._output), fault.delay)
            self.pending = _delayed
        if fault is None:
            super()._write(reply, octets)
        elif fault.action is not None:
            self._act(fault.action)
        elif fault.instead is not None:
            self.transcript.add_reply(self._shown_octets(fault.instead))
            self._output += fault.instead
        else:
            super()._write(reply, octets if fault.reply is None else fault.reply.to_bytes())
            if fault.injected:
                self.transcript.add("--", f"fault: {len(fault.injected)} octets injected")
                self._output += fault.injected

    def _shown_octets(self, octets: bytes) -> Reply:
        """Return *octets* as a reply for the transcript."""
        text = octets.decode("utf-8", "backslashreplace")
        code = int(text[:3]) if octets[:3].isdigit() else 0
        return self._shown(Reply(code, tuple(line[4:] for line in text.splitlines()) or ("",)))

    def _starttls(self, command: StartTLS) -> None:
        fault = self._plan.take("STARTTLS")
        if fault is not None and fault.action is not None:
            self._act(fault.action)
        elif fault is not None and fault.reply is not None:
            self._with(fault, self._send_reply, fault.reply)
        else:
            self._with(fault, super()._starttls, command)

    def _begin_chunk(self, command: Bdat, refusal: Reply | None) -> None:
        fault = self._chunk_fault = self._plan.take("BDAT")
        if fault is not None and fault.action is not None:
            self._act(fault.action)
        else:
            super()._begin_chunk(command, refusal or (None if fault is None else fault.reply))

    def _chunk_ended(self) -> None:
        fault = self._chunk_fault
        self._with(fault, super()._chunk_ended)
        if fault is not None and fault.reply is not None:
            self._abandon()

    def _content_ended(self, reader: ContentReader) -> None:
        fault = self._plan.take("dot") or self._chunk_fault
        self._chunk_fault = None
        if fault is not None and fault.reply is not None:
            # Refused by the plan, so the handler must not keep it.
            reader.handler_refusal = fault.reply
        self._dot = fault
        self._with(fault, super()._content_ended, reader)

    def _committed(self, answer: Any) -> None:
        fault = self._dot
        if fault is not None and fault.action is not None:
            self._act(fault.action)
        else:
            self._with(fault, super()._committed, answer)

    def _offer(self) -> dict[str, str]:
        return {k: v for k, v in super()._offer().items() if k not in self._plan.without}


class FaultyProtocol(SMTPServerProtocol):
    """Sends late, octet by octet, or not all octets, if the plan has that."""

    factory: FaultyFactory
    session: FaultySession

    def connectionMade(self) -> None:
        """See ``IProtocol``."""
        #: Octets to send, and the seconds before each.
        self._unsent: deque[tuple[float, bytes]] = deque()
        #: Sends the first of them.
        self._timed: IDelayedCall | None = None
        self._then: list[Callable[[], None]] = []
        self._left = self.factory.plan.close_after
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See ``IProtocol``."""
        self._unsent.clear()
        if self._timed is not None:
            self._timed.cancel()
            self._timed = None
        super().connectionLost(reason)

    def _flush(self) -> None:
        at, seconds = self.session.take_delay() or (0, 0.0)
        data = self.session.output()
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        self._send(data[:at], 0)
        self._send(data[at:], seconds)
        if self._timed is None:
            self._send_due()
        if self._left == 0:
            self._left = None
            self.session.dead = True
            self.session.end("fault")

    def _send(self, data: bytes, seconds: float) -> None:
        step = 1 if self.factory.plan.single_bytes else len(data)
        interval = OCTET_INTERVAL if self.factory.plan.single_bytes else 0
        for number in range(0, len(data), step or 1):
            wait = interval if number else max(seconds, interval)
            self._unsent.append((wait, data[number : number + step]))

    def _send_due(self) -> None:
        """Send what need not wait, and the rest later."""
        self._timed = None
        transport: Any = self.transport
        while self._unsent:
            seconds, data = self._unsent[0]
            if seconds:
                self._unsent[0] = 0, data
                self._timed = self.factory.clock.callLater(seconds, self._send_rest)
                return
            self._unsent.popleft()
            transport.write(data)

    def _send_rest(self) -> None:
        self._send_due()
        if self._timed is None:
            then, self._then = self._then, []
            for each in then:
                each()
            self.session.reply_sent()
            self._pump()

    def _when_sent(self, call: Callable[[], None]) -> None:
        if self._unsent:
            self._then.append(call)
        else:
            call()

    def _start_tls(self) -> None:
        self._flush()
        self._when_sent(lambda: self.factory.start_tls(self))

    def _close(self) -> None:
        self._when_sent(super()._close)

    def _regulate(self) -> None:
        session = self.session
        if session.resetting:
            session.resetting = False
            transport: Any = self.transport
            self.factory.clock.callLater(RESET_DELAY, transport.abortConnection)
        if session.dead and session.state is not ServerState.CLOSED and not self._over:
            # Stalled: neither read nor close.
            self._timer.clear()
            self._hold(hold=True)
        elif self._unsent and session.state is not ServerState.CLOSED:
            # The client waits, and has no deadline.
            self._timer.clear()
        else:
            super()._regulate()


class FaultyFactory(SMTPServerFactory):
    """A server factory with a plan of faults."""

    protocol_class = FaultyProtocol

    def __init__(
        self,
        clock: IReactorTime,
        receiver: Callable[[ConnectionInfo], Receiver],
        *,
        plan: FaultPlan | None = None,
        tls: IOpenSSLServerConnectionCreator | None = None,
        accounts: Accounts | None = None,
        settings: ServerSettings | None = None,
        deadlines: ServerTimeouts | None = None,
        trace: bool = True,
    ) -> None:
        super().__init__(
            clock,
            receiver,
            tls=tls,
            accounts=accounts,
            settings=settings,
            deadlines=deadlines,
            trace=trace,
        )
        self.plan = plan or FaultPlan()

    def session(
        self, settings: ServerSettings, handler: ServerHandler, *, tls: bool
    ) -> ServerSession:
        """Make a session that follows the plan."""
        gone = self.plan.without
        settings = replace(
            settings,
            extensions=tuple(word for word in settings.extensions if word not in gone),
            starttls=settings.starttls and "STARTTLS" not in gone,
            mechanisms=() if "AUTH" in gone else settings.mechanisms,
        )
        return FaultySession(settings, handler, self.plan, tls=tls)
