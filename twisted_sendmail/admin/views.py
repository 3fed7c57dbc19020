"""The clerk of the admin endpoint: what is answered to each request.

It decides who may see and do what, asks the spool, and has the pages drawn.  It knows no
socket: a request comes as a value, and so goes its answer.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from prometheus_client import CONTENT_TYPE_LATEST
from twisted.python.failure import Failure
from twisted.web.template import flattenString

from twisted_sendmail.admin.filters import PER_PAGE, Filter
from twisted_sendmail.admin.frame import (
    Viewer,
    confirmation_page,
    sign_in_page,
    trouble_page,
)
from twisted_sendmail.admin.http_guard import Answer, see, text
from twisted_sendmail.admin.message_page import message_page
from twisted_sendmail.admin.page import Overview, overview_page
from twisted_sendmail.admin.reasons import reasons
from twisted_sendmail.admin.sessions import Session, Sessions, TooManyTries
from twisted_sendmail.admin.shown import count
from twisted_sendmail.client import off_reactor
from twisted_sendmail.queue import QueueAction, Selection, id_number
from twisted_sendmail.smtp import SendmailError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from twisted.web.template import Tag

    from twisted_sendmail.admin.health import Health
    from twisted_sendmail.admin.history import History
    from twisted_sendmail.admin.http_guard import Asked, Names
    from twisted_sendmail.admin.ledger import Ledger
    from twisted_sendmail.admin.metrics import Metrics
    from twisted_sendmail.admin.watched import WatchedRelay
    from twisted_sendmail.queue import Queue, QueueActionResult

#: Messages that one click may act on.
MOST = 2000
#: Deferred messages that are asked why.
ASKED = 500
#: Octets of a message that are looked at for its header.
HEADER = 16384
#: Messages named where it is asked once more.
NAMED = 10
#: Failures on the page.
FAILURES = 20

_BACK = re.compile(r"/message/[0-9A-Z]{12}\Z")
#: What is gone afterwards, and what it means.
_ASKS = {
    QueueAction.DELETE: (
        "Delete",
        "Removed from the queue, and nobody is told. This cannot be undone.",
    ),
    QueueAction.EXPIRE: (
        "Return to sender",
        "The sender is told that it could not be delivered, and it is not tried again. This cannot be undone.",
    ),
}
_DONE = {
    QueueAction.FLUSH: "tried now",
    QueueAction.HOLD: "put on hold",
    QueueAction.RELEASE: "released",
    QueueAction.REQUEUE: "queued anew",
    QueueAction.EXPIRE: "returned to the sender",
    QueueAction.DELETE: "deleted",
}


class Views:
    """Answers.

    :param reactor: keeps time, and has threads to write pages in.
    :param name: the relay's own name.
    :param private: show nobody the queue who has not signed in.
    """

    def __init__(
        self,
        spool: Queue,
        relay: WatchedRelay,
        sessions: Sessions,
        names: Names,
        *,
        reactor: Any,
        health: Health,
        history: History,
        ledger: Ledger,
        metrics: Metrics,
        name: str,
        private: bool,
    ) -> None:
        self._spool = spool
        self._relay = relay
        self._sessions = sessions
        self._names = names
        self._reactor = reactor
        self._health = health
        self._history = history
        self._ledger = ledger
        self._metrics = metrics
        self._name = name
        self._private = private
        self._open: dict[str, dict[str, Callable[[Asked], Awaitable[Answer]]]] = {
            "/healthz": {"GET": self._healthz},
            "/metrics": {"GET": self._exposition},
            "/": {"GET": self._overview},
        }
        self._with_token: dict[str, dict[str, Callable[[Asked], Awaitable[Answer]]]] = {
            "/sign-in": {"GET": self._ask_token, "POST": self._sign_in},
            "/sign-out": {"POST": self._sign_out},
            "/act": {"POST": self._act},
            "/flush": {"POST": self._flush},
        }

    async def answer(self, asked: Asked) -> Answer:
        """The answer to *asked*.

        :raises Exception: for a fault of ours only; whoever serves says 500.
        """
        if asked.host not in self._names:
            return text(
                421,
                "this page does not go by that name; the configuration can name others that it goes by",
            )
        ways = self._open.get(asked.path)
        if ways is None and self._sessions.possible:
            ways = self._with_token.get(asked.path)
        if ways is None and asked.path.startswith("/message/"):
            ways = {"GET": self._message}
        if ways is None:
            return text(404, "there is nothing here")
        way = ways.get("GET" if asked.method == "HEAD" else asked.method)
        if way is None:
            allowed = ", ".join([*ways, "HEAD"] if "GET" in ways else ways)
            return text(405, "that cannot be done here", ("Allow", allowed))
        if asked.method == "POST" and not asked.from_here:
            return text(403, "the form is not one of this page's")
        try:
            return await way(asked)
        except SendmailError as e:
            page = partial(trouble_page, self._viewer(asked), "The queue could not do it", str(e))
            return await self._drawn(page, 503)

    async def _healthz(self, asked: Asked) -> Answer:
        reason = await self._health.reason()
        return text(200, "ok") if reason is None else text(503, reason)

    async def _exposition(self, asked: Asked) -> Answer:
        self._history.wake()
        try:
            totals = await self._spool.totals()
        except SendmailError:
            totals = None
        body = self._metrics.exposition(totals, self._relay.route_states(), self._reactor.seconds())
        return Answer(200, body, CONTENT_TYPE_LATEST)

    # Looking.

    async def _overview(self, asked: Asked) -> Answer:
        session = self._sessions.find(asked.session)
        if self._private and session is None:
            return see("/sign-in")
        self._history.wake()
        wanted = Filter.read(asked.query)
        totals = await self._spool.totals()
        found = await self._spool.list(wanted.selection(wanted.page * PER_PAGE + 1))
        late = await self._spool.list(Selection(queue="deferred", limit=ASKED))
        begin = (wanted.page - 1) * PER_PAGE
        facts = Overview(
            totals=totals,
            samples=self._history.days if wanted.span == "days" else self._history.hour,
            wanted=wanted,
            messages=found[begin : begin + PER_PAGE],
            more=len(found) > begin + PER_PAGE,
            reasons=reasons(late),
            asked=ASKED if totals.queues.get("deferred", 0) > ASKED else None,
            failures=self._ledger.failures[:FAILURES],
            counts=self._ledger.counts,
            routes=self._relay.route_states(),
            unwell=await self._health.reason(),
        )
        return await self._drawn(partial(overview_page, self._viewer(asked, session), facts))

    async def _message(self, asked: Asked) -> Answer:
        session = self._sessions.find(asked.session)
        if self._private and session is None:
            return see("/sign-in")
        name = asked.path.removeprefix("/message/").upper()
        found: Sequence[object] = ()
        if id_number(name) is not None:
            found = messages = await self._spool.list(Selection(ids=(name,)))
        if not found:
            viewer = self._viewer(asked, session)
            what = "It was delivered, returned or deleted, or there never was one of that name."
            return await self._drawn(partial(trouble_page, viewer, "No such message", what), 404)
        header = await self._header(name) if session is not None else None
        return await self._drawn(
            partial(message_page, self._viewer(asked, session), messages[0], header)
        )

    async def _header(self, name: str) -> bytes | None:
        """The beginning of a message; None where it cannot be read any more."""
        head = b""
        pieces = self._spool.content(name)
        try:
            async for piece in pieces:
                head += piece
                if len(head) >= HEADER or b"\r\n\r\n" in head:
                    break
        except SendmailError:
            return None
        finally:
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()
        return head[:HEADER]

    # Signing in and out.

    async def _ask_token(self, asked: Asked) -> Answer:
        if self._sessions.find(asked.session) is not None:
            return see("/")
        return await self._drawn(partial(sign_in_page, self._viewer(asked)))

    async def _sign_in(self, asked: Asked) -> Answer:
        viewer = self._viewer(asked)
        try:
            name = self._sessions.sign_in(asked.one("token").strip())
        except TooManyTries as e:
            wait = int(e.wait) + 1
            page = partial(
                sign_in_page, viewer, f"Too many wrong tokens came in. Wait {wait} s and try again."
            )
            return await self._drawn(page, 429, ("Retry-After", str(wait)))
        if name is None:
            return await self._drawn(partial(sign_in_page, viewer, "That is not the token."), 403)
        return see("/", session=name)

    async def _sign_out(self, asked: Asked) -> Answer:
        if self._may_act(asked) is None:
            return see("/sign-in")
        self._sessions.sign_out(asked.session)
        return see("/", session="")

    # Acting.

    def _may_act(self, asked: Asked) -> Session | None:
        session = self._sessions.find(asked.session)
        if session is None or not self._sessions.genuine(session, asked.one("secret")):
            return None
        return session

    async def _flush(self, asked: Asked) -> Answer:
        session = self._may_act(asked)
        if session is None:
            return see("/sign-in")
        acted = await self._relay.flush()
        session.notice = _told(QueueAction.FLUSH, acted, len(acted))
        return see("/")

    async def _act(self, asked: Asked) -> Answer:
        session = self._may_act(asked)
        if session is None:
            return see("/sign-in")
        try:
            action = QueueAction(asked.one("action"))
        except ValueError:
            return text(400, "there is no such action")
        back = _back(asked.one("back"))
        ids = await self._meant(asked)
        if not ids:
            # Without ids a selection means every message: it must never get that far.
            session.notice = "No message was ticked, so nothing was done."
            return see(back)
        if action in _ASKS and asked.one("sure") != "yes":
            some = await self._spool.list(Selection(ids=ids[:NAMED]))
            viewer = self._viewer(asked, session)
            page = partial(
                confirmation_page, viewer, action.value, ids, back, _ASKS[action], some=some
            )
            return await self._drawn(page)
        selection = Selection(ids=ids)
        if action is QueueAction.FLUSH:
            acted = await self._relay.flush(selection)
        else:
            acted = await self._spool.act(action, selection, self._reactor.seconds())
        session.notice = _told(action, acted, len(ids))
        gone = action in _ASKS and back.startswith("/message/")
        return see("/" if gone else back)

    async def _meant(self, asked: Asked) -> tuple[str, ...]:
        """The messages a form means, by name, so that it is those and no others."""
        if asked.one("which") == "matching":
            fields = {name: values[-1] for name, values in asked.form.items()}
            found = await self._spool.list(Filter.read(fields).selection(MOST))
            return tuple(message.id for message in found)
        names = (name.upper() for name in asked.form.get("id", []))
        return tuple(dict.fromkeys(name for name in names if id_number(name) is not None))[:MOST]

    async def _drawn(
        self, draw: Callable[[], Tag], code: int = 200, *headers: tuple[str, str]
    ) -> Answer:
        # A long page takes a tenth of a second: mail does not wait for it.
        body = await off_reactor(self._reactor, partial(_written, draw))
        return Answer(code, body, headers=headers)

    def _viewer(self, asked: Asked, session: Session | None = None) -> Viewer:
        notice = None
        if session is not None:
            notice, session.notice = session.notice, None
        return Viewer(
            self._name,
            self._reactor.seconds(),
            self._sessions.possible,
            session.form_secret if session is not None else None,
            notice,
        )


def _back(where: str) -> str:
    """A page of ours, made anew from what was understood of it."""
    if _BACK.match(where):
        return where
    path, _, query = where.partition("?")
    if path != "/":
        return "/"
    try:
        fields = parse_qs(query, max_num_fields=20)
    except ValueError:
        return "/"
    return Filter.read({name: values[-1] for name, values in fields.items()}).link()


def _told(action: QueueAction, acted: Sequence[QueueActionResult], meant: int) -> str:
    """What became of it, in a sentence or three."""
    verb = "was" if len(acted) == 1 else "were"
    said = f"{count(len(acted), 'message')} {verb} {_DONE[action]}."
    under_way = sum(each.on_its_way for each in acted)
    if under_way and action is QueueAction.DELETE:
        said += f" {count(under_way, 'of them is', 'of them are')} on the way at this moment and may still go out."
    elif under_way:
        said += f" For {under_way:,} on the way at this moment, it counts when that try has ended."
    if meant > len(acted):
        said += f" {count(meant - len(acted), 'other was', 'others were')} gone already."
    return said


def _written(draw: Callable[[], Tag]) -> bytes:
    """A page as octets."""
    outcome: list[bytes | Failure] = []
    # There is nothing in a page that is waited for.
    _ = flattenString(None, draw()).addBoth(outcome.append)
    (written,) = outcome
    if isinstance(written, Failure):
        written.raiseException()
    return b"<!DOCTYPE html>\n" + written
