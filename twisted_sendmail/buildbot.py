"""``MailNotifier``: Buildbot's reporter by mail, over verified TLS and, with ``queue=``, a durable queue.

Needs the extra ``buildbot``.  In ``master.cfg`` it takes the place of ``reporters.MailNotifier``: reports,
recipients and header are made by that class, and only the sending differs.
"""

from __future__ import annotations

import os
from email.utils import parseaddr
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_sendmail.client import SubmissionServer, submit
from twisted_sendmail.extras import missing_extra
from twisted_sendmail.relay import Attempted, RelayService, RouteDown
from twisted_sendmail.smtp import ForwardPath, InvalidInput, Mailbox, SendmailError

try:
    from buildbot import config
    from buildbot.interfaces import IRenderable
    from buildbot.reporters import mail
    from buildbot.util import bytes2unicode
except ImportError as e:
    raise missing_extra("buildbot", e) from None

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from email.message import Message

    from twisted_sendmail.relay import Event, Observer

_log = Logger(namespace="twisted_sendmail.buildbot")
#: Seconds that mail on its way without a queue is given when the reporter stops.
_GRACE = 30.0
#: Stands for a secret, which is not known when the configuration is checked.
_UNKNOWN = "unknown"


class MailNotifier(mail.MailNotifier):
    """Mails reports of builds; the parameters but the last two are those of Buildbot's own.

    :param fromaddr: the address that mail is from.
    :param relayhost: the server's name.
    :param useTls: require STARTTLS; it is required anyway with a user, or if the server is another machine.
    :param useSmtps: TLS from the first octet.
    :param smtpUser: for AUTH, with *smtpPassword*; may be renderables, such as ``util.Secret``.
    :param smtpPort: the server's port.
    :param server: instead of *relayhost*, *smtpPort*, *smtpUser* and TLS: a URL such as
        ``smtp+starttls://user@host``, whose password is *smtpPassword*, a renderable of one, or a
        :class:`~twisted_sendmail.SubmissionServer`.
    :param queue: a directory of this reporter alone, relative to that of the master. Mail is put there first and
        delivered across restarts. None: mail is sent once, and lost if that fails.

    An argument that cannot be used is an error of ``buildbot checkconfig``.
    """

    secrets: ClassVar[list[str]] = ["server"]
    _relay: RelayService | None = None
    _server: SubmissionServer
    _directory: str | None = None

    def checkConfig(
        self,
        fromaddr: str,
        relayhost: str = "localhost",
        lookup: Any = None,
        extraRecipients: Sequence[str] | None = None,
        sendToInterestedUsers: bool = True,
        extraHeaders: Mapping[str, Any] | None = None,
        useTls: bool = False,
        useSmtps: bool = False,
        smtpUser: Any = None,
        smtpPassword: Any = None,
        smtpPort: int = 25,
        dumpMailsToLog: bool = False,
        generators: list[Any] | None = None,
        server: Any = None,
        queue: str | os.PathLike[str] | None = None,
    ) -> None:
        """See ``BuildbotService``: report each argument that cannot be used."""
        # This is called by __init__, whose arguments are Buildbot's.
        self._under_way: set[Deferred[None]] = set()
        super().checkConfig(
            fromaddr,
            relayhost=relayhost,
            lookup=lookup,
            extraRecipients=extraRecipients,
            sendToInterestedUsers=sendToInterestedUsers,
            extraHeaders=extraHeaders,
            useTls=useTls,
            useSmtps=useSmtps,
            smtpUser=smtpUser,
            smtpPassword=smtpPassword,
            smtpPort=smtpPort,
            dumpMailsToLog=dumpMailsToLog,
            generators=generators,
        )
        try:
            _ = Mailbox.parse(parseaddr(fromaddr)[1])
            if not IRenderable.providedBy(server):
                _ = _submission_server(
                    server, relayhost, smtpPort, smtpUser, smtpPassword, useTls, useSmtps
                )
        except InvalidInput as error:
            config.error(f"MailNotifier: {error}")
        if queue is not None and (not isinstance(queue, (str, os.PathLike)) or not str(queue)):
            config.error(
                "MailNotifier: queue cannot be used; give the path of a directory, or None"
            )

    def reconfigService(
        self,
        fromaddr: str,
        relayhost: str = "localhost",
        lookup: Any = None,
        extraRecipients: Sequence[str] | None = None,
        sendToInterestedUsers: bool = True,
        extraHeaders: Mapping[str, Any] | None = None,
        useTls: bool = False,
        useSmtps: bool = False,
        smtpUser: Any = None,
        smtpPassword: Any = None,
        smtpPort: int = 25,
        dumpMailsToLog: bool = False,
        generators: list[Any] | None = None,
        server: Any = None,
        queue: str | os.PathLike[str] | None = None,
    ) -> Deferred[None]:
        """See ``BuildbotService``: use these arguments from now on; secrets have their values.

        :raises InvalidInput: a rendered argument cannot be used.
        """

        async def run() -> None:
            self._server = _submission_server(
                server, relayhost, smtpPort, smtpUser, smtpPassword, useTls, useSmtps
            )
            await self._use_queue(queue)
            # It begins to consume events.
            await super(MailNotifier, self).reconfigService(
                fromaddr,
                relayhost=relayhost,
                lookup=lookup,
                extraRecipients=extraRecipients,
                sendToInterestedUsers=sendToInterestedUsers,
                extraHeaders=extraHeaders,
                useTls=useTls,
                useSmtps=useSmtps,
                smtpUser=smtpUser,
                smtpPassword=smtpPassword,
                smtpPort=smtpPort,
                dumpMailsToLog=dumpMailsToLog,
                generators=generators,
            )

        return Deferred.fromCoroutine(run())

    async def _use_queue(self, queue: str | os.PathLike[str] | None) -> None:
        """Let a relay with this directory deliver, or none."""
        directory = None if queue is None else os.path.join(self.master.basedir, queue)  # noqa: PTH118
        if self._relay is not None and directory == self._directory:
            route = attrs.evolve(self._relay.settings.routes[0], servers=(self._server,))
            self._relay.reconfigure(attrs.evolve(self._relay.settings, routes=(route,)))
            return
        await self._stop_relay()
        self._directory = directory
        if directory is None:
            return
        relay = RelayService.to(self.master.reactor, directory, self._server)
        relay.observers = [partial(_once_for_each_outage, each) for each in relay.observers]
        relay.startService()
        try:
            _ = await relay.ready()
        except SendmailError as error:
            # The builds go on, and mail is not lost as long as its server works.
            _log.error(
                "mail is sent without the queue {queue}: {error}", queue=directory, error=error
            )
            await relay.stopService()
        else:
            self._relay = relay

    async def _stop_relay(self) -> None:
        relay, self._relay = self._relay, None
        if relay is not None:
            await relay.stopService()

    def stopService(self) -> Deferred[None]:
        """See ``IService``; fires when mail on its way has ended, or after 30 seconds."""

        async def run() -> None:
            late = self.master.reactor.callLater(_GRACE, self._cancel_all)
            try:
                await super(MailNotifier, self).stopService()
                await self._stop_relay()
            finally:
                if late.active():
                    late.cancel()

        return Deferred.fromCoroutine(run())

    def _cancel_all(self) -> None:
        for sending in tuple(self._under_way):
            sending.cancel()

    def sendMail(self, m: Message, recipients: Sequence[str]) -> Deferred[None]:
        """Queue or send a message; an error is one line in the log.

        :param m: the message, to which Auto-Submitted and, if it is missing, To are added; Message-ID is added on the way.
        :param recipients: addresses, with or without display names.

        Cancelling ends a message that is sent without a queue.
        """
        sending = Deferred.fromCoroutine(self._send(m, recipients))
        if not sending.called:
            self._under_way.add(sending)

            def ended(result: Any) -> Any:
                self._under_way.discard(sending)
                return result

            _ = sending.addBoth(ended)
        return sending

    async def _send(self, m: Message, recipients: Sequence[str]) -> None:
        subject = str(m["Subject"])
        if "To" not in m:
            m["To"] = ", ".join(self.formatAddress(each) for each in sorted(recipients))
        if "Auto-Submitted" not in m:
            m["Auto-Submitted"] = "auto-generated"  # RFC 3834: no vacation notices
        if self.dumpMailsToLog:
            _log.info("mail data:\n{mail}", mail=m.as_string())
        sender, addresses = parseaddr(self.fromaddr)[1], self._usable(recipients)
        if not addresses:
            _log.warn("no mail about {subject!r}: it has no recipient", subject=subject)
            return
        try:
            content = m.as_string().encode("utf-8", "surrogateescape")
            if self._relay is not None:
                queued = await self._relay.send(content, sender=sender, recipients=addresses)
                _log.info("mail about {subject!r}: queued as {id}", subject=subject, id=queued.id)
                return
            report = await submit(
                self.master.reactor, self._server, content, sender=sender, recipients=addresses
            )
        except SendmailError as error:
            _log.error("no mail about {subject!r}: {error}", subject=subject, error=error)
            return
        _log.info("mail about {subject!r}: sent to {n}", subject=subject, n=len(report.accepted))
        for refused in report.refused:
            _log.warn("mail about {subject!r}: {refused}", subject=subject, refused=refused)

    def _usable(self, recipients: Sequence[str]) -> list[str]:
        usable = []
        for each in recipients:
            address = parseaddr(each)[1]
            try:
                _ = ForwardPath.parse(address)
            except InvalidInput as error:
                _log.warn("a recipient gets no mail: {error}", error=error)
            else:
                usable.append(address)
        return usable


def _once_for_each_outage(observer: Observer, event: Event) -> None:
    """Pass *event* on, unless it is an attempt that failed because the server is still down."""
    if isinstance(event, RouteDown) and event.again:
        return
    if isinstance(event, Attempted) and event.status == "deferred" and event.relay == "none":
        return
    observer(event)


def _submission_server(
    server: Any, host: str, port: int, user: Any, password: Any, starttls: bool, smtps: bool
) -> SubmissionServer:
    """Return the server of the arguments, where any text may be a renderable."""
    user, password = (
        _UNKNOWN if IRenderable.providedBy(each) else bytes2unicode(each)
        for each in (user, password)
    )
    return SubmissionServer.from_settings(
        server,
        host=host,
        port=port,
        user=user,
        password=password,
        starttls=starttls,
        implicit_tls=smtps,
    )
