"""The admin endpoint of a relay: health for supervisors, metrics for Prometheus, a page of the queue.

It reads the queue and observes the relay; mail does not depend on it. It has no TLS, and the queue
shows who writes to whom, so it listens on the loopback interface or a Unix socket unless
``public`` is given.
"""

from __future__ import annotations

import re
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from prometheus_client import CONTENT_TYPE_LATEST
from twisted.application.service import Service

from twisted_sendmail.admin.format import count
from twisted_sendmail.admin.health import Health
from twisted_sendmail.admin.history import QueueHistory
from twisted_sendmail.admin.metrics import Metrics
from twisted_sendmail.admin.pages import (
    CONFIRMED_ACTIONS,
    PER_PAGE,
    Overview,
    QueueFilter,
    Viewer,
    confirmation_page,
    delay_causes,
    error_page,
    message_page,
    overview_page,
    sign_in_page,
    to_html,
)
from twisted_sendmail.admin.sessions import AdminSession, Sessions, TooManyTokens
from twisted_sendmail.admin.web import (
    HostNames,
    HTTPRequest,
    HTTPResponse,
    busy_response,
    http_factory,
    redirect,
    text_response,
)
from twisted_sendmail.client import is_loopback
from twisted_sendmail.off_reactor import off_reactor
from twisted_sendmail.queue import QueueAction, Selection, id_number
from twisted_sendmail.shared_result import SharedTasks
from twisted_sendmail.smtp import InvalidInput, SendmailError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint
    from twisted.web.template import Flattenable

    from twisted_sendmail.admin.health import WatchedRelay
    from twisted_sendmail.admin.local_mail import LocalMail
    from twisted_sendmail.queue import Queue, QueueActionResult, QueuedMessage, QueueTotals

    Handler = Callable[[HTTPRequest], Awaitable[HTTPResponse]]

#: Messages that one action applies to.
MAX_ACTION_MESSAGES = 2000
#: Deferred messages whose causes are grouped on the overview.
MAX_EXAMINED = 500
#: Octets of a content that are read for its header.
MAX_HEADER_SIZE = 16384
#: Messages named in a request for confirmation.
CONFIRMATION_MESSAGES = 10
#: Failures on the overview.
SHOWN_FAILURES = 20
#: Overviews, with different filters, that wait for the one that is being made.
MAX_WAITING_OVERVIEWS = 8

_MESSAGE_PATH = re.compile(r"/message/[0-9A-Z]{12}\Z")
_DONE = {
    QueueAction.FLUSH: "tried now",
    QueueAction.HOLD: "put on hold",
    QueueAction.RELEASE: "released",
    QueueAction.REQUEUE: "requeued",
    QueueAction.EXPIRE: "returned to the sender",
    QueueAction.DELETE: "deleted",
}


class AdminSite(Service):
    """The endpoint, from start to stop.

    :param reactor: provides ``IReactorTime``, and threads to write pages in.
    :param queue: open while the service runs.
    :param relay: takes mail out of the queue.
    :param token: signs in operators, who may act on the queue; None: actions are not offered.
    :param name: the relay's name, shown on the pages.
    :param names: host names of the site besides ``localhost`` and the loopback addresses.
    :param private: show the queue only after signing in; health and metrics stay open.
    :param public: allow other addresses than those of the loopback interface.
    :param local_mail: returns the figures of the drop directory; None: there are none.
    :raises InvalidInput: the token is too short; ``private`` without a token.
    """

    def __init__(
        self,
        reactor: Any,
        queue: Queue,
        relay: WatchedRelay,
        *,
        token: str | None = None,
        name: str = "localhost",
        names: Iterable[str] = (),
        private: bool = False,
        public: bool = False,
        local_mail: Callable[[], LocalMail | None] = lambda: None,
    ) -> None:
        if private and token is None:
            raise InvalidInput(
                "the queue page cannot be private",
                detail="there is no token",
                remedy="give a token",
            )
        self._reactor = reactor
        self._queue = queue
        self._relay = relay
        self._relay_name = name
        self._private = private
        self._public = public
        self._local_mail = local_mail
        self._sessions = Sessions(token, reactor)
        self._names = HostNames(names)
        self._port: IListeningPort | None = None
        self._overviews: SharedTasks[HTTPResponse] = SharedTasks(MAX_WAITING_OVERVIEWS)
        #: An observer for the relay's events.
        self.metrics = Metrics(reactor.seconds)
        self.history = QueueHistory(reactor, queue.totals)
        self.health = Health(reactor, queue.probe, relay)
        #: For an endpoint to listen with.
        self.factory = http_factory(reactor, self.respond)
        self._handlers: dict[str, dict[str, Handler]] = {
            "/healthz": {"GET": self._get_health},
            "/metrics": {"GET": self._get_metrics},
            "/": {"GET": self._get_overview},
        }
        if self._sessions.possible:
            self._handlers |= {
                "/sign-in": {"GET": self._get_sign_in, "POST": self._sign_in},
                "/sign-out": {"POST": self._sign_out},
                "/act": {"POST": self._act},
                "/flush": {"POST": self._flush},
            }

    def startService(self) -> None:
        """Start to sample the queue; see ``IService``."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        self.history.start()

    async def listen(self, endpoint: IStreamServerEndpoint) -> IListeningPort:
        """Listen at *endpoint*.

        :raises InvalidInput: other machines could connect, and ``public`` was not given.
        :raises CannotListenError: the address is in use, or forbidden.
        """
        port: IListeningPort = await endpoint.listen(self.factory)
        address = port.getHost()
        host = getattr(address, "host", None)
        if not self._public and not is_local(address):
            # No connection was accepted yet: that needs a turn of the reactor.
            await _close(port)
            raise InvalidInput(
                f"the admin endpoint cannot listen on {host}",
                detail="other hosts could read senders and recipients",
                remedy="give interface=127.0.0.1, or set public",
            )
        if host is not None and not ip_address(host.partition("%")[0]).is_unspecified:
            self._names.add_address(host)
        self._port = port
        return port

    async def stopService(self) -> None:
        """Close the port; see ``IService``."""
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        self.history.stop()
        self.health.stop()
        port, self._port = self._port, None
        if port is not None:
            await _close(port)

    async def respond(self, request: HTTPRequest) -> HTTPResponse:
        """Return the response to *request*.

        :raises Exception: an internal error; the caller sends 500.
        """
        if request.host not in self._names:
            return text_response(421, "unknown host name; add it to admin.names")
        handlers = self._handlers.get(request.path)
        if handlers is None and request.path.startswith("/message/"):
            handlers = {"GET": self._get_message}
        if handlers is None:
            return text_response(404, "not found")
        handler = handlers.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            allowed = ", ".join([*handlers, "HEAD"] if "GET" in handlers else handlers)
            return text_response(405, "method not allowed", ("Allow", allowed))
        if request.method == "POST" and not request.same_origin:
            return text_response(403, "the form is from another site")
        try:
            return await handler(request)
        except SendmailError as e:
            headline = "Queue error"
            return await self._page(503, error_page, self._viewer(), headline, str(e))

    # -- Reading ---------------------------------------------------------------------------------

    async def _get_health(self, request: HTTPRequest) -> HTTPResponse:
        problem = await self.health.problem()
        if problem is not None:
            return text_response(503, problem)
        # Mail that waits there is no fault of the relay alone: a user may cause it.
        local = self._local_mail()
        return text_response(200, "ok" if local is None or not local.line else f"ok\n{local.line}")

    async def _get_metrics(self, request: HTTPRequest) -> HTTPResponse:
        self.history.resume()
        try:
            totals = await self._queue.totals()
        except SendmailError:
            totals = None
        now = self._reactor.seconds()
        relay = self._relay.stats()
        body = self.metrics.exposition(totals, relay.routes, now, self._local_mail(), relay.relays)
        return HTTPResponse(200, body, CONTENT_TYPE_LATEST)

    async def _get_overview(self, request: HTTPRequest) -> HTTPResponse:
        session = self._sessions.find(request.session)
        if self._private and session is None:
            return redirect("/sign-in")
        wanted = QueueFilter.from_fields(request.query)
        key = (wanted, None if session is None else session.form_secret)
        page = self._overviews.run(key, lambda: self._overview(wanted, session))
        return busy_response() if page is None else await page

    async def _overview(self, wanted: QueueFilter, session: AdminSession | None) -> HTTPResponse:
        self.history.resume()
        totals = await self._queue.totals()
        messages = await self._queue.list(
            wanted.selection(PER_PAGE, offset=(wanted.page - 1) * PER_PAGE)
        )
        deferred = await self._queue.list(Selection(queue="deferred", limit=MAX_EXAMINED))
        relay = self._relay.stats()
        overview = Overview(
            totals=totals,
            samples=self.history.days if wanted.span == "days" else self.history.hour,
            filter=wanted,
            messages=messages,
            matching=await self._matching(wanted, totals),
            causes=delay_causes(deferred),
            examined=MAX_EXAMINED if totals.queues.get("deferred", 0) > MAX_EXAMINED else None,
            failures=self.metrics.failures[:SHOWN_FAILURES],
            counts=self.metrics.counts,
            routes=relay.routes,
            relays=relay.relays,
            unhealthy=await self.health.problem(),
        )
        return await self._page(200, overview_page, self._viewer(session), overview)

    async def _matching(self, wanted: QueueFilter, totals: QueueTotals) -> int:
        if wanted.recipient or wanted.sender:
            return await self._queue.count(wanted.selection(None))
        queues = totals.queues
        return queues.get(wanted.queue, 0) if wanted.queue else sum(queues.values())

    async def _get_message(self, request: HTTPRequest) -> HTTPResponse:
        session = self._sessions.find(request.session)
        if self._private and session is None:
            return redirect("/sign-in")
        id_ = request.path.removeprefix("/message/").upper()
        found: Sequence[QueuedMessage] = ()
        if id_number(id_) is not None:
            found = await self._queue.list(Selection(ids=(id_,)))
        if not found:
            text = "The message was delivered, returned or deleted, or no message had that id."
            return await self._page(404, error_page, self._viewer(session), "No such message", text)
        header = await self._header(id_) if session is not None else None
        return await self._page(
            200, message_page, self._viewer(session), found[0], header, self._relay.stats().routes
        )

    async def _header(self, id_: str) -> bytes | None:
        """Read the beginning of a content; None if it cannot be read any more."""
        head = b""
        chunks = self._queue.content(id_)
        try:
            async for chunk in chunks:
                head += chunk
                if len(head) >= MAX_HEADER_SIZE or b"\r\n\r\n" in head:
                    break
        except SendmailError:
            return None
        finally:
            close = getattr(chunks, "aclose", None)
            if close is not None:
                await close()
        return head[:MAX_HEADER_SIZE]

    # -- Signing in and out ----------------------------------------------------------------------

    async def _get_sign_in(self, request: HTTPRequest) -> HTTPResponse:
        if self._sessions.find(request.session) is not None:
            return redirect("/")
        return await self._page(200, sign_in_page, self._viewer())

    async def _sign_in(self, request: HTTPRequest) -> HTTPResponse:
        try:
            session = self._sessions.sign_in(request.field("token").strip())
        except TooManyTokens as e:
            wait = int(e.wait) + 1
            problem = f"Too many wrong tokens were given. Wait {wait} s and try again."
            response = await self._page(429, sign_in_page, self._viewer(), problem)
            return HTTPResponse(429, response.body, headers=(("Retry-After", str(wait)),))
        if session is None:
            return await self._page(403, sign_in_page, self._viewer(), "That is not the token.")
        return redirect("/", session)

    async def _sign_out(self, request: HTTPRequest) -> HTTPResponse:
        if self._authorized(request) is None:
            return redirect("/sign-in")
        self._sessions.sign_out(request.session)
        return redirect("/", session="")

    # -- Acting ----------------------------------------------------------------------------------

    def _authorized(self, request: HTTPRequest) -> AdminSession | None:
        """Return the session of a form that a page of this session sent."""
        session = self._sessions.find(request.session)
        if session is None or not self._sessions.owns_form(session, request.field("secret")):
            return None
        return session

    async def _flush(self, request: HTTPRequest) -> HTTPResponse:
        session = self._authorized(request)
        if session is None:
            return redirect("/sign-in")
        results = await self._relay.flush()
        self._overviews.forget()
        session.notice = _summary(QueueAction.FLUSH, results, len(results))
        return redirect("/")

    async def _act(self, request: HTTPRequest) -> HTTPResponse:
        session = self._authorized(request)
        if session is None:
            return redirect("/sign-in")
        try:
            action = QueueAction(request.field("action"))
        except ValueError:
            return text_response(400, "there is no such action")
        back = _safe_link(request.field("back"))
        ids = await self._chosen_ids(request)
        if not ids:
            # A selection without ids means every message, so it must not be made.
            session.notice = "No message was ticked, so nothing was done."
            return redirect(back)
        if action in CONFIRMED_ACTIONS and request.field("sure") != "yes":
            first = await self._queue.list(Selection(ids=ids[:CONFIRMATION_MESSAGES]))
            page = partial(confirmation_page, first=first)
            return await self._page(200, page, self._viewer(session), action, ids, back)
        selection = Selection(ids=ids)
        if action is QueueAction.FLUSH:
            results = await self._relay.flush(selection)
        else:
            results = await self._queue.act(action, selection, self._reactor.seconds())
        self._overviews.forget()
        session.notice = _summary(action, results, len(ids))
        lost = action in CONFIRMED_ACTIONS and back.startswith("/message/")
        return redirect("/" if lost else back)

    async def _chosen_ids(self, request: HTTPRequest) -> tuple[str, ...]:
        """Return the ids of the messages that a form applies to, so that it applies to no others."""
        if request.field("which") == "matching":
            fields = {name: values[-1] for name, values in request.form.items()}
            wanted = QueueFilter.from_fields(fields).selection(MAX_ACTION_MESSAGES)
            return tuple(message.id for message in await self._queue.list(wanted))
        given = (id_.upper() for id_ in request.form.get("id", []))
        ids = dict.fromkeys(id_ for id_ in given if id_number(id_) is not None)
        return tuple(ids)[:MAX_ACTION_MESSAGES]

    # -- Pages -----------------------------------------------------------------------------------

    def _viewer(self, session: AdminSession | None = None) -> Viewer:
        secret = notice = None
        if session is not None:
            secret = session.form_secret
            notice, session.notice = session.notice, None
        now = self._reactor.seconds()
        return Viewer(self._relay_name, now, self._sessions.possible, secret, notice)

    async def _page(self, code: int, page: Callable[..., Flattenable], *args: Any) -> HTTPResponse:
        # In a thread: a long page takes a tenth of a second, and mail must not wait for it.
        body = await off_reactor(self._reactor, lambda: to_html(page(*args)))
        return HTTPResponse(code, body)


def _safe_link(link: str) -> str:
    """Return a link to a page of this site, made from the valid parts of *link*."""
    if _MESSAGE_PATH.match(link):
        return link
    path, _, query = link.partition("?")
    if path != "/":
        return "/"
    try:
        fields = parse_qs(query, max_num_fields=20)
    except ValueError:
        return "/"
    return QueueFilter.from_fields({name: values[-1] for name, values in fields.items()}).link()


def _summary(action: QueueAction, results: Sequence[QueueActionResult], chosen: int) -> str:
    """Describe the results of an action on *chosen* messages in up to three sentences."""
    text = f"{count(len(results), 'message was', 'messages were')} {_DONE[action]}."
    under_way = sum(result.on_its_way for result in results)
    if under_way and action is QueueAction.DELETE:
        text += f" {count(under_way, 'of them is', 'of them are')} being delivered now and may still go out."
    elif under_way:
        text += f" For {under_way:,} being delivered now, it applies when that attempt has ended."
    if chosen > len(results):
        text += f" {count(chosen - len(results), 'other was', 'others were')} gone already."
    return text


def is_local(address: IAddress) -> bool:
    """Return True if only this machine can connect to *address*."""
    host: str | None = getattr(address, "host", None)
    # An address without a host is a Unix socket.
    return host is None or is_loopback(host.partition("%")[0])


async def _close(port: IListeningPort) -> None:
    closing: Deferred[None] | None = port.stopListening()
    if closing is not None:
        await closing
