"""Mail of a Scrapy project: ``MailSender`` in place of ``scrapy.mail``, and ``StatsMailer``, an extension.

Needs the extra ``scrapy``.  The settings are Scrapy's ``MAIL_HOST``, ``MAIL_PORT``, ``MAIL_USER``,
``MAIL_PASS``, ``MAIL_TLS``, ``MAIL_SSL`` and ``MAIL_FROM``, or ``MAIL_URL`` instead of the first six:
``smtp+starttls://user@host``, with the password in ``MAIL_PASS``, or a
:class:`~twisted_sendmail.SubmissionServer`.  The server's certificate is verified.

Lines are written to the standard library's log, as Scrapy's own are.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredList

from twisted_sendmail.client import SubmissionServer, submit
from twisted_sendmail.extras import missing_extra
from twisted_sendmail.message import Attachment, compose
from twisted_sendmail.smtp import InvalidMessage, SendmailError, printable

try:
    from scrapy import signals
    from scrapy.exceptions import NotConfigured
    from scrapy.utils.defer import maybe_deferred_to_future
except ImportError as e:
    raise missing_extra("scrapy", e) from None

if TYPE_CHECKING:
    from collections.abc import Iterable
    from email.message import EmailMessage
    from typing import IO

    from twisted_sendmail.smtp import DeliveryReport

_log = logging.getLogger(__name__)


class MailSender:
    """Sends mail from a spider, an extension or a pipeline.

    The parameters but the last are those of ``scrapy.mail.MailSender``.

    :param smtphost: the server.
    :param mailfrom: the address that mail is from.
    :param smtpuser: for AUTH, with *smtppass*; None for no AUTH.
    :param smtpport: the server's port.
    :param smtptls: require STARTTLS; it is required anyway with a user, or if the server is another machine.
    :param smtpssl: TLS from the first octet.
    :param debug: log messages and do not send them.
    :param server: a URL or a SubmissionServer, instead of host, port, user and TLS.
    :raises InvalidInput: an argument cannot be used.
    """

    def __init__(  # noqa: PLR0917 - Scrapy's signature
        self,
        smtphost: str = "localhost",
        mailfrom: str = "scrapy@localhost",
        smtpuser: str | None = None,
        smtppass: str | None = None,
        smtpport: int = 25,
        smtptls: bool = False,  # noqa: FBT001, FBT002 - Scrapy's signature
        smtpssl: bool = False,  # noqa: FBT001, FBT002
        debug: bool = False,  # noqa: FBT001, FBT002
        *,
        server: str | SubmissionServer | None = None,
    ) -> None:
        self.mailfrom = mailfrom
        self.debug = debug
        #: The server that mail is submitted to.
        self.server = SubmissionServer.from_settings(
            server,
            host=smtphost,
            port=smtpport,
            user=smtpuser,
            password=smtppass,
            starttls=smtptls,
            implicit_tls=smtpssl,
        )
        self._under_way: set[Deferred[DeliveryReport]] = set()
        self._awaited_at_shutdown = False

    @classmethod
    def from_crawler(cls, crawler: Any) -> MailSender:
        """Return the sender of a crawler's settings.

        :raises InvalidInput: a setting cannot be used.
        """
        return cls.from_settings(crawler.settings)

    @classmethod
    def from_settings(cls, settings: Any) -> MailSender:
        """Return the sender of ``scrapy.settings.Settings``.

        :raises InvalidInput: a setting cannot be used.
        """
        return cls(
            smtphost=settings["MAIL_HOST"],
            mailfrom=settings["MAIL_FROM"],
            smtpuser=settings["MAIL_USER"],
            smtppass=settings["MAIL_PASS"],
            smtpport=settings.getint("MAIL_PORT"),
            smtptls=settings.getbool("MAIL_TLS"),
            smtpssl=settings.getbool("MAIL_SSL"),
            server=settings.get("MAIL_URL"),
        )

    def send(  # noqa: PLR0917 - Scrapy's signature
        self,
        to: str | Iterable[str],
        subject: str,
        body: str,
        cc: str | Iterable[str] | None = None,
        attachs: Iterable[tuple[str, str, IO[Any]]] = (),
        mimetype: str = "text/plain",
        charset: str | None = None,
    ) -> Deferred[DeliveryReport] | None:
        """Send one message, once; its end is one line in the log.

        :param to: one address or several, each as in a header; likewise *cc*.
        :param attachs: name, media type and file of each attachment; the file is read, not closed.
        :param mimetype: media type of *body*.
        :param charset: of *body*; UTF-8 if not given.
        :returns: fires when a recipient was accepted; None with *debug*. The process ends after it.
        :raises InvalidInput: an argument cannot be used; nothing was sent.
        :raises SendmailError: no recipient was accepted, or the message is in doubt.

        Cancelling closes the connection; see :func:`~twisted_sendmail.submit`.
        """
        recipients, copied = _addresses(to), _addresses(cc)
        files = list(attachs)
        what = (
            f"To={recipients} Cc={copied} Subject={printable(str(subject))!r} Attachs={len(files)}"
        )

        async def run() -> DeliveryReport:
            try:
                message = compose(
                    sender=self.mailfrom,
                    to=recipients,
                    cc=copied,
                    subject=subject,
                    text=body,
                    attachments=[_attachment(*each) for each in files],
                )
                if charset is not None or mimetype != "text/plain":
                    _set_body(message, body, mimetype, charset or "utf-8")
                report = await submit(_reactor(), self.server, message)
            except Exception as error:
                _log.error("Unable to send mail: %s: %s", what, error)  # without a traceback
                raise
            _log.info("Mail sent OK: %s", what)
            for refused in report.refused:
                _log.warning("Mail partly refused: %s: %s", what, refused)
            return report

        if self.debug:
            _log.debug("Debug mail sent OK: %s", what)
            return None
        sending = Deferred.fromCoroutine(run())
        self._await_at_shutdown(sending)
        return sending

    def _await_at_shutdown(self, sending: Deferred[DeliveryReport]) -> None:
        """Let the reactor end after *sending*: a spider that closes does not wait for its mail."""

        def ended(result: Any) -> Any:
            self._under_way.discard(sending)
            return result

        if sending.called:
            return
        self._under_way.add(sending)
        _ = sending.addBoth(ended)
        if not self._awaited_at_shutdown:
            self._awaited_at_shutdown = True
            _reactor().addSystemEventTrigger("before", "shutdown", self._all_ended)

    def _all_ended(self) -> Deferred[Any]:
        waiting = []
        for sending in self._under_way:
            done: Deferred[None] = Deferred()
            waiting.append(done)

            def ended(result: Any, done: Deferred[None] = done) -> Any:
                done.callback(None)
                return result

            _ = sending.addBoth(ended)
        return DeferredList(waiting)


class StatsMailer:
    """Mails the statistics of a crawl to ``STATSMAILER_RCPTS`` when its spider closes.

    In the settings::

        EXTENSIONS = {"twisted_sendmail.scrapy.StatsMailer": 500}

    :param stats: Scrapy's collector of statistics.
    :param recipients: addresses.
    :param mail: sends the message.
    """

    def __init__(self, stats: Any, recipients: list[str], mail: MailSender) -> None:
        self.stats = stats
        self.recipients = recipients
        self.mail = mail

    @classmethod
    def from_crawler(cls, crawler: Any) -> StatsMailer:
        """Return the extension of a crawler.

        :raises NotConfigured: there are no recipients, or a setting cannot be used; Scrapy logs it.
        """
        recipients = crawler.settings.getlist("STATSMAILER_RCPTS")
        if not recipients:
            raise NotConfigured
        if not crawler.settings.getbool("TWISTED_REACTOR_ENABLED", True):
            raise NotConfigured(_NO_REACTOR)
        try:
            mail = MailSender.from_crawler(crawler)
        except SendmailError as error:
            raise NotConfigured(str(error)) from None
        extension = cls(crawler.stats, recipients, mail)
        crawler.signals.connect(extension.spider_closed, signal=signals.spider_closed)
        return extension

    async def spider_closed(self, spider: Any) -> None:
        """Mail the statistics; an error is a line in the log, and does not fail the crawl."""
        lines = [f"{name:<50} : {value}" for name, value in self.stats.get_stats().items()]
        sending = self.mail.send(
            self.recipients, f"Scrapy stats for: {spider.name}", "\n".join([*lines, ""])
        )
        if sending is not None:
            await maybe_deferred_to_future(sending.addErrback(lambda _: None))


_NO_REACTOR = "mail needs a Twisted reactor: leave the setting TWISTED_REACTOR_ENABLED True"


def _reactor() -> Any:
    try:
        from twisted.internet import reactor
    except ImportError:
        # Scrapy forbids the import in a process without one.
        raise RuntimeError(_NO_REACTOR) from None
    return reactor


def _addresses(given: str | Iterable[str] | None) -> list[str]:
    return [given] if isinstance(given, str) else list(given or ())


def _attachment(name: str, media_type: str, file: IO[Any]) -> Attachment:
    content = file.read()
    if isinstance(content, str):
        content = content.encode()
        if media_type.startswith("text/") and ";" not in media_type:
            media_type += "; charset=utf-8"
    return Attachment(content, name, media_type)


def _set_body(message: EmailMessage, body: str, media_type: str, charset: str) -> None:
    """Give the text of *message* another media type and charset."""
    part: Any = message.get_body(("plain",))
    main, _, sub = media_type.partition("/")
    try:
        content = body.encode(charset)
        if main == "text":
            part.set_content(body, subtype=sub, charset=charset)
        else:
            part.set_content(content, maintype=main, subtype=sub)
    except (LookupError, ValueError, TypeError) as error:
        raise InvalidMessage(
            f"the body cannot be {printable(media_type, 80)} in {printable(charset, 80)}",
            detail=printable(str(error), 200),
        ) from None
