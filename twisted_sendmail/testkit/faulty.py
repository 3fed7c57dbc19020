"""A server that commits the faults of a plan, and is ours in all else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from twisted_sendmail.ingress.factory import SMTPServerFactory
from twisted_sendmail.ingress.protocol import SMTPServerProtocol
from twisted_sendmail.smtp import server_event as happened
from twisted_sendmail.smtp.command import Verb
from twisted_sendmail.smtp.reply import Reply
from twisted_sendmail.smtp.server_session import ServerSession
from twisted_sendmail.smtp.server_table import ServerState
from twisted_sendmail.testkit.faults import Act, FaultPlan

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_sendmail.smtp.server_settings import ServerSettings
    from twisted_sendmail.testkit.faults import Fault

#: Seconds between two octets of those that are said one by one.
DRIP = 0.0001
#: Seconds for earlier answers to arrive before a reset.
BEFORE_RESET = 0.05

_MOMENTS = {
    Verb.GREETING: "greeting",
    Verb.HELO: "EHLO",
    Verb.LHLO: "EHLO",
    Verb.BDAT_LAST: "BDAT",
    Verb.CONTENT: "dot",
}


class _Reset(happened.Event):
    """The connection is to be reset."""


class FaultySession(ServerSession):
    """Asks the plan before each answer."""

    def __init__(self, settings: ServerSettings, plan: FaultPlan, *, tls: bool) -> None:
        #: Nothing more is heard or said.
        self.dead = False
        self._plan = plan
        self._decided = False
        self._due: Fault | None = None
        #: What is due at the question that is open, and at the end of this content.
        self._pending: Fault | None = None
        self._dot: Fault | None = None
        super().__init__(settings, tls=tls)

    def greet(self, reply: Reply | None = None) -> None:
        """As it is, or as the plan has it."""
        fault = self._plan.take("greeting")
        if fault is not None and fault.act is not None:
            self._do_act(fault.act)
            return
        self._decided, self._due = True, fault
        super().greet(fault.reply if fault is not None and fault.reply is not None else reply)
        self._decided = False

    def next_event(self) -> happened.Event | None:
        """As it is; what the plan refuses, nobody else is asked about."""
        while True:
            event = super().next_event()
            if not isinstance(event, happened.Question):
                return event
            fault = self._fault_at(event)
            self._pending = fault
            if fault is not None and fault.act is not None and fault is not self._dot:
                self._question = None
                self._do_act(fault.act)
            elif fault is not None and fault.reply is not None:
                self.answer(fault.reply)
            else:
                return event

    def _fault_at(self, question: happened.Question) -> Fault | None:
        if isinstance(question, happened.ContentEnded):
            return self._dot
        address: str | None = None
        if isinstance(question, happened.RecipientGiven):
            address = str(question.recipient)
        elif isinstance(question, happened.SenderGiven):
            address = str(question.sender)
        return self._plan.take(self._moment(), address)

    def answer(self, *replies: Reply) -> None:
        """As it is, or as the plan has it."""
        fault, self._pending = self._pending, None
        if fault is not None and fault.act is not None:
            self._question = None
            self._do_act(fault.act)
            return
        self._decided, self._due = True, fault
        super().answer(*replies)
        self._decided = False

    def _moment(self) -> str:
        return _MOMENTS.get(self._verb, self._verb.value)

    def _do_act(self, act: Act) -> None:
        self.transcript.add("--", f"fault: {act.value}")
        self.dead = True
        if act is Act.CLOSE:
            self._end("fault")
        elif act is Act.RESET:
            self._abort("fault")
            self._events.append(_Reset())

    def _write(self, reply: Reply) -> None:
        if self.dead:
            return
        fault = self._due if self._decided else self._plan.take(self._moment())
        self._due = None
        if fault is None:
            super()._write(reply)
        elif fault.act is not None:
            self._do_act(fault.act)
        elif fault.instead is not None:
            self.transcript.add_reply(self._shown_octets(fault.instead))
            self._output += fault.instead
        else:
            super()._write(fault.reply or reply)
            if fault.behind:
                self.transcript.add("--", f"fault: {len(fault.behind)} octets behind it")
                self._output += fault.behind

    def _shown_octets(self, octets: bytes) -> Reply:
        """What the transcript keeps of *octets* said instead of a reply."""
        text = octets.decode("utf-8", "backslashreplace")
        code = int(text[:3]) if octets[:3].isdigit() else 0
        return self._shown(Reply(code, tuple(line[4:] for line in text.splitlines()) or ("",)))

    def _starttls(self) -> None:
        fault = self._plan.take("STARTTLS")
        self._decided, self._due = True, fault
        if fault is not None and fault.reply is not None:
            self._say(fault.reply)
        elif fault is not None and fault.act is not None:
            self._do_act(fault.act)
        else:
            super()._starttls()
        self._decided = False

    def _keep(self, content: bytes) -> None:
        fault = self._plan.take("content") if content else None
        if fault is None or self.dead:
            super()._keep(content)
        elif fault.act is not None:
            self._do_act(fault.act)
        elif fault.reply is not None:
            super()._write(fault.reply)
            self.dead = True
            self._end("fault")

    def _ask_verdict(self) -> bool:
        self._dot = self._plan.take("dot")
        if self._dot is not None and self._dot.reply is not None:
            # Refused by the plan, so nobody shall keep it.
            self.refuse_content(self._dot.reply)
            self._decided = True
            done = super()._ask_verdict()
            self._decided = False
            return done
        return super()._ask_verdict()

    def _step(self) -> bool:
        return not self.dead and super()._step()

    def _offered(self) -> dict[str, str]:
        words = super()._offered()
        return {k: v for k, v in words.items() if k not in self._plan.without}


class FaultyProtocol(SMTPServerProtocol):
    """Octet by octet, or not all octets, where the plan says so."""

    factory: FaultyFactory
    session: FaultySession

    def connectionMade(self) -> None:
        """Begin."""
        self._drip = bytearray()
        self._then: list[Callable[[], None]] = []
        self._left = self.factory.plan.close_after
        super().connectionMade()

    def _flush(self) -> None:
        data = self.session.output()
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        transport: Any = self.transport
        if not self.factory.plan.single_bytes:
            if data:
                transport.write(data)
        elif data:
            idle = not self._drip
            self._drip += data
            if idle:
                self.factory.clock.callLater(DRIP, self._drop)
        if self._left == 0:
            self._left = None
            self.session.dead = True
            self._when_said(lambda: self._ended(happened.SessionEnded("fault")))

    def _drop(self) -> None:
        if self._over:
            return
        transport: Any = self.transport
        transport.write(bytes(self._drip[:1]))
        del self._drip[:1]
        if self._drip:
            self.factory.clock.callLater(DRIP, self._drop)
            return
        then, self._then = self._then, []
        for each in then:
            each()

    def _when_said(self, call: Callable[[], None]) -> None:
        if self._drip:
            self._then.append(call)
        else:
            call()

    def _start_tls_when_said(self, event: happened.TLSWanted) -> None:
        self._flush()
        self._when_said(lambda: self.factory.start_tls(self))

    def _end_when_said(self, event: happened.SessionEnded) -> None:
        self._flush()
        self._when_said(lambda: self._ended(event))

    def _reset(self, event: _Reset) -> None:
        transport: Any = self.transport
        self._flush()
        # What was said before is to arrive; a reset takes back what is still under way.
        self.factory.clock.callLater(BEFORE_RESET, transport.abortConnection)

    def _regulate(self) -> None:
        if self.session.dead and self.session.state is not ServerState.CLOSED and not self._over:
            # Silent for ever: neither reading nor hanging up.
            self._timer.clear()
            self._hold(hold=True)
        else:
            super()._regulate()

    _HANDLERS: ClassVar[dict[type[happened.Event], Callable[[Any, Any], None]]] = {
        **SMTPServerProtocol._HANDLERS,  # noqa: SLF001 - a subclass
        happened.TLSWanted: _start_tls_when_said,
        happened.SessionEnded: _end_when_said,
        _Reset: _reset,
    }


class FaultyFactory(SMTPServerFactory):
    """Makes servers that follow a plan.

    The parameters are those of the factory, and *plan*.
    """

    protocol_class = FaultyProtocol

    def __init__(self, *args: Any, plan: FaultPlan | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.plan = plan or FaultPlan()

    def session(self, settings: ServerSettings, *, tls: bool) -> ServerSession:
        """One that asks the plan, and offers nothing that the plan withholds."""
        gone = self.plan.without
        settings = replace(
            settings,
            extensions=tuple(word for word in settings.extensions if word not in gone),
            starttls=settings.starttls and "STARTTLS" not in gone,
            mechanisms=() if "AUTH" in gone else settings.mechanisms,
        )
        return FaultySession(settings, self.plan, tls=tls)
