"""A server session that is talked to in memory: what goes in, what comes out, what was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from twisted_sendmail.smtp import server_event as happened
from twisted_sendmail.smtp.reply import Reply
from twisted_sendmail.smtp.server_session import ServerSession
from twisted_sendmail.smtp.server_settings import ServerSettings

CLEAR = ServerSettings(host="mx.example.org", require_tls=False)
SECURE = ServerSettings(
    host="mx.example.org", starttls=True, mechanisms=("PLAIN", "LOGIN"), require_auth=True
)


class Talk:
    """Answers every question with yes, or as *decide* says, and notes what happened."""

    def __init__(
        self,
        settings: ServerSettings = CLEAR,
        *,
        tls: bool = False,
        decide: Callable[[happened.Question], Reply | None] = lambda question: None,
        **changes: object,
    ) -> None:
        self.session = ServerSession(replace(settings, **changes), tls=tls)  # type: ignore[arg-type]
        self.decide = decide
        self.events: list[happened.Event] = []
        #: The content of each message that was committed.
        self.contents: list[bytes] = []
        self._content = b""
        self.session.greet()
        self.said = self.session.output().decode()

    def send(self, data: bytes | str, cut: int | Iterable[int] = 0) -> list[str]:
        """Lines said in return, without CRLF."""
        octets = data.encode() if isinstance(data, str) else data
        size = cut if isinstance(cut, int) else 0
        sizes = iter(cut) if not isinstance(cut, int) else None
        while octets:
            size = next(sizes, len(octets)) if sizes is not None else size or len(octets)
            self.session.receive(octets[:size])
            octets = octets[size:]
            self.pump()
        return self.session.output().decode().splitlines()

    def line(self, text: str) -> str:
        """The one line said to one command."""
        (reply,) = self.send(text + "\r\n")
        return reply

    def code(self, text: str) -> str:
        """Code and enhanced status code of the last line said to one command."""
        return " ".join(self.send(text + "\r\n")[-1].split()[:2])

    def pump(self) -> None:
        while (event := self.session.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, happened.ContentArrived):
                self._content += event.data
            elif isinstance(event, happened.TransactionAborted):
                self._content = b""
            elif isinstance(event, happened.TLSWanted):
                self.session.tls_started()
            elif isinstance(event, happened.Question):
                self.session.answer(self._answer(event))

    def _answer(self, question: happened.Question) -> Reply:
        decision = self.decide(question)
        if isinstance(question, happened.ContentEnded):
            if decision is None or decision.code < 400:
                self.contents.append(self._content)
            self._content = b""
        if decision is not None:
            return decision
        if isinstance(question, happened.ContentOffered):
            return Reply(354, ("go ahead",))
        if isinstance(question, (happened.AuthStarted, happened.AuthContinued)):
            return Reply(235, ("2.7.0 welcome",))
        return Reply(250, ("2.0.0 Ok",))

    def happened(self, kind: type[happened.Event]) -> int:
        """How often."""
        return sum(isinstance(event, kind) for event in self.events)

    @property
    def over(self) -> bool:
        return self.happened(happened.SessionEnded) > 0


def in_transaction(talk: Talk, parameters: str = "") -> Talk:
    """EHLO, MAIL and RCPT said and accepted."""
    talk.send("EHLO client.example.org\r\n")
    assert talk.code(f"MAIL FROM:<a@example.org>{parameters}") == "250 2.0.0"
    assert talk.code("RCPT TO:<b@example.net>") == "250 2.0.0"
    return talk
