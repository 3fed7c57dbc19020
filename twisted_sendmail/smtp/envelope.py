"""The envelope: who sends, who receives, and how to report about it.

RFC 5321 section 2.3.1 (envelope), RFC 3461 (delivery status notifications),
RFC 4954 section 5 (the AUTH parameter), RFC 8689 (REQUIRETLS).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from twisted_sendmail.smtp.address import ForwardPath, ReversePath
from twisted_sendmail.smtp.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable

_NOTIFY = frozenset({"SUCCESS", "FAILURE", "DELAY"})
_NOTHING_ASKED: frozenset[str] = frozenset()
#: RFC 3461 section 4.4.
MAX_ENVID = 100
#: RFC 3461 section 4.2.
MAX_ORCPT = 500


@dataclass(frozen=True)
class Recipient:
    """One recipient and what he, or the sender for him, asks for.

    :param path: where to; text is parsed.
    :param notify: when to report (RFC 3461 section 4.1): ``NEVER`` alone, or any of
        ``SUCCESS``, ``FAILURE``, ``DELAY``; empty leaves it to the server.
    :param orcpt: the original recipient, ``addr-type;address`` (section 4.2), not encoded.
    :raises InvalidInput: for anything else.
    """

    path: ForwardPath
    notify: frozenset[str] = frozenset()
    orcpt: str | None = None

    def __init__(
        self,
        path: str | ForwardPath,
        notify: str | Iterable[str] = (),
        orcpt: str | None = None,
    ) -> None:
        if isinstance(path, str):
            path = ForwardPath.parse(path)
        elif not isinstance(path, ForwardPath):
            msg = f"recipient {path!r} cannot be used"
            raise InvalidInput(msg, detail="it is neither text nor a ForwardPath")
        words: frozenset[str] = frozenset()
        if notify:
            given = [notify] if isinstance(notify, str) else notify
            words = frozenset(word.upper() for word in given)
        if words and words != {"NEVER"} and not words <= _NOTIFY:
            msg = f"NOTIFY={','.join(sorted(words))} cannot be used"
            raise InvalidInput(msg, remedy="give NEVER alone, or any of SUCCESS, FAILURE, DELAY")
        if orcpt is not None:
            _check_parameter("ORCPT", orcpt, MAX_ORCPT)
            if orcpt.find(";") < 1:
                msg = "ORCPT cannot be used"
                raise InvalidInput(
                    msg,
                    detail="it has no address type",
                    remedy="write it as rfc822;user@example.org",
                )
        put = object.__setattr__
        put(self, "path", path)
        put(self, "notify", words)
        put(self, "orcpt", orcpt)

    @classmethod
    def plain(cls, path: ForwardPath) -> Recipient:
        """The recipient at *path*, of whom nothing else was said."""
        recipient: Recipient = object.__new__(cls)
        # There is nothing to be checked.
        recipient.__dict__.update(path=path, notify=_NOTHING_ASKED, orcpt=None)
        return recipient

    @property
    def has_dsn(self) -> bool:
        """Does it need the DSN extension?"""
        return bool(self.notify) or self.orcpt is not None

    def __str__(self) -> str:
        return str(self.path)


AnyRecipient = str | ForwardPath | Recipient


@dataclass(frozen=True)
class Envelope:
    """What MAIL and RCPT say.

    :param sender: the reverse-path; text is parsed, ``""`` and ``None`` are the null
        reverse-path.
    :param recipients: at least one; text is parsed, the same path is kept once.
    :param ret: ``FULL`` or ``HDRS``: how much a failure report returns (RFC 3461 section 4.3).
    :param envid: the envelope identifier, repeated in reports (section 4.4), not encoded.
    :param require_tls: only over TLS all the way, or not at all (RFC 8689).
    :raises InvalidInput: when something does not fit.
    """

    sender: ReversePath
    recipients: tuple[Recipient, ...]
    ret: str | None = None
    envid: str | None = None
    require_tls: bool = False

    def __init__(
        self,
        sender: str | ReversePath | None,
        recipients: AnyRecipient | Iterable[AnyRecipient],
        *,
        ret: str | None = None,
        envid: str | None = None,
        require_tls: bool = False,
    ) -> None:
        put = object.__setattr__
        put(self, "sender", _reverse_path(sender))
        put(self, "recipients", _recipients(recipients))
        if ret is not None and ret.upper() not in {"FULL", "HDRS"}:
            msg = "RET cannot be used"
            raise InvalidInput(msg, remedy="give FULL or HDRS")
        put(self, "ret", ret.upper() if ret else None)
        if envid is not None:
            _check_parameter("ENVID", envid, MAX_ENVID)
        put(self, "envid", envid)
        put(self, "require_tls", require_tls)

    @classmethod
    def plain(cls, sender: ReversePath, recipient: Recipient) -> Envelope:
        """From *sender* to *recipient*, and nothing else was said."""
        envelope: Envelope = object.__new__(cls)
        # There is nothing to be checked.
        envelope.__dict__.update(
            sender=sender, recipients=(recipient,), ret=None, envid=None, require_tls=False
        )
        return envelope

    def to(self, recipients: tuple[Recipient, ...]) -> Envelope:
        """The same for other *recipients*."""
        return Envelope(
            self.sender,
            recipients,
            ret=self.ret,
            envid=self.envid,
            require_tls=self.require_tls,
        )

    @property
    def needs_smtputf8(self) -> bool:
        """True when an address has a local part that is not ASCII (RFC 6531)."""
        if self.sender.needs_smtputf8:
            return True
        for recipient in self.recipients:  # noqa: SIM110 - a generator is slower, for one or two
            if recipient.path.needs_smtputf8:
                return True
        return False

    @property
    def has_dsn(self) -> bool:
        """Does it need the DSN extension?"""
        return (
            self.ret is not None
            or self.envid is not None
            or any(r.has_dsn for r in self.recipients)
        )


def _reverse_path(sender: str | ReversePath | None) -> ReversePath:
    if type(sender) is str:
        return _sender_of(sender)
    if sender is None:
        return ReversePath()
    return sender if isinstance(sender, ReversePath) else ReversePath.parse(sender)


# A program writes to and from the same addresses over and over, and these are values.


@lru_cache(maxsize=1024)
def _sender_of(text: str) -> ReversePath:
    return ReversePath.parse(text)


@lru_cache(maxsize=4096)
def _recipient_of(text: str) -> Recipient:
    return Recipient(text)


def _recipients(recipients: AnyRecipient | Iterable[AnyRecipient]) -> tuple[Recipient, ...]:
    if type(recipients) is str:
        return (_recipient_of(recipients),)
    if isinstance(recipients, (str, ForwardPath, Recipient)):
        recipients = (recipients,)
    elif isinstance(recipients, bytes) or not hasattr(recipients, "__iter__"):
        msg = f"recipients cannot be {type(recipients).__name__}"
        raise InvalidInput(msg, remedy="give an address, or a list of addresses")
    found = [
        given
        if isinstance(given, Recipient)
        else (_recipient_of(given) if type(given) is str else Recipient(given))
        for given in recipients
    ]
    if len(found) == 1:
        return (found[0],)
    kept: dict[tuple[str, str], Recipient] = {}
    for recipient in found:
        box = recipient.path.mailbox
        kept.setdefault((box.local_part, box.ascii_domain.lower()) if box else ("", ""), recipient)
    if not kept:
        msg = "the message has no recipient"
        raise InvalidInput(msg, remedy="give recipients, or put them in To, Cc or Bcc")
    return tuple(kept.values())


def _check_parameter(name: str, value: str, limit: int) -> None:
    if not value or not value.isprintable():
        msg = f"{name} cannot be used"
        raise InvalidInput(msg, detail="it is empty or holds control characters")
    if len(value) > limit:
        msg = f"{name} cannot be used"
        raise InvalidInput(msg, detail=f"it is longer than {limit} characters")
