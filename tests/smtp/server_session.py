"""A server session in memory: octets in, replies out, and the calls of the handler."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from twisted_sendmail import Reply, ServerHandler, ServerSession, ServerSettings
from twisted_sendmail.smtp import PENDING, ServerState

CLEAR = ServerSettings(host="mx.example.org", require_tls=False)
SECURE = ServerSettings(
    host="mx.example.org", starttls=True, mechanisms=("PLAIN", "LOGIN"), require_auth=True
)
#: The answer to a call, by the name of the handler's method; None: yes.
Decide = Callable[[str], Any]


class Talk(ServerHandler):
    """A session, and its handler: it answers yes or as *decide* says, and notes each call."""

    def __init__(
        self,
        settings: ServerSettings = CLEAR,
        *,
        tls: bool = False,
        decide: Decide = lambda method: None,
        **changes: object,
    ) -> None:
        self.session = ServerSession(replace(settings, **changes), self, tls=tls)  # type: ignore[arg-type]
        self.decide = decide
        #: Each call of the handler: its name and its arguments.
        self.calls: list[tuple[object, ...]] = []
        #: The content of each message that was committed.
        self.contents: list[bytes] = []
        self._content = b""
        self.session.greet()
        self.said = self.session.output().decode()

    # -- the handler ----------------------------------------------------------

    def _note(self, *call: object) -> Any:
        self.calls.append(call)
        return self.decide(str(call[0]))

    def hello(self, *args: object) -> None:
        self._note("hello", *args)

    def start_tls(self) -> None:
        if self._note("start_tls") is not PENDING:
            self.session.tls_started()

    def auth(self, *args: object) -> Any:
        return self._note("auth", *args) or Reply(235, ("2.7.0 welcome",))

    def auth_response(self, *args: object) -> Any:
        return self._note("auth_response", *args) or Reply(235, ("2.7.0 welcome",))

    def auth_cancelled(self) -> None:
        self._note("auth_cancelled")

    def mail(self, *args: object) -> Any:
        return self._note("mail", *args)

    def rcpt(self, *args: object) -> Any:
        return self._note("rcpt", *args)

    def data(self) -> Any:
        return self._note("data")

    def chunk(self, data: bytes) -> Any:
        self._content += data
        return self._note("chunk", data)

    def commit(self) -> Any:
        answer = self._note("commit")
        if answer is None or (isinstance(answer, Reply) and answer.code < 400):
            self.contents.append(self._content)
        self._content = b""
        return answer

    def abort(self, *args: object) -> None:
        self._content = b""
        self._note("abort", *args)

    # -- the client -----------------------------------------------------------

    def send(self, data: bytes | str, cut: int | Iterable[int] = 0) -> list[str]:
        """Lines sent in return, without CRLF.

        As RFC 2920 has it, nothing is sent together with DATA that follows it.
        """
        octets = data.encode() if isinstance(data, str) else data
        sizes = iter(cut) if not isinstance(cut, int) else None
        for piece in re.split(rb"(?<=DATA\r\n)", octets):
            rest = piece
            while rest:
                size = cut if isinstance(cut, int) and cut else len(rest)
                size = size if sizes is None else next(sizes, len(rest))
                self.session.receive(rest[:size])
                rest = rest[size:]
                self.session.run()
        return self.session.output().decode().splitlines()

    def line(self, text: str) -> str:
        """The one line sent in return to one command."""
        (reply,) = self.send(text + "\r\n")
        return reply

    def code(self, text: str) -> str:
        """Code and enhanced status code of the last line sent in return to one command."""
        return " ".join(self.send(text + "\r\n")[-1].split()[:2])

    def called(self, method: str) -> int:
        """How often a method of the handler was called."""
        return sum(call[0] == method for call in self.calls)

    def last(self, method: str) -> tuple[object, ...]:
        """The arguments of the last call of a method of the handler."""
        return [call for call in self.calls if call[0] == method][-1][1:]

    @property
    def over(self) -> bool:
        return self.session.state is ServerState.CLOSED


def in_transaction(talk: Talk, parameters: str = "") -> Talk:
    """EHLO, MAIL and RCPT sent and accepted."""
    talk.send("EHLO client.example.org\r\n")
    assert talk.code(f"MAIL FROM:<a@example.org>{parameters}") == "250 2.0.0"
    assert talk.code("RCPT TO:<b@example.net>") == "250 2.0.0"
    return talk
