"""The envelope: sender, recipients, and the reports that the sender requests.

RFC 5321 section 2.3.1 (envelope), RFC 3461 (delivery status notifications),
RFC 4954 section 5 (the AUTH parameter), RFC 8689 (REQUIRETLS).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from twisted_sendmail.smtp.address import ForwardPath, ReversePath
from twisted_sendmail.smtp.arguments import check_flag, check_type
from twisted_sendmail.smtp.commands import upper
from twisted_sendmail.smtp.errors import InvalidAddress, InvalidInput
from twisted_sendmail.smtp.limits import MAX_ENVID, MAX_ORCPT

_NOTIFY = frozenset({"SUCCESS", "FAILURE", "DELAY"})


def _path(path: object) -> ForwardPath:
    if isinstance(path, str):
        return ForwardPath.parse(path)
    raise InvalidInput(
        f"recipient {path!r} cannot be used",
        detail="it is neither text nor a ForwardPath",
        remedy="give text such as jane@example.org",
    )


def _notify(notify: str | Iterable[str]) -> frozenset[str]:
    check_type("notify", notify, Iterable, "NEVER, or any of SUCCESS, FAILURE, DELAY")
    given = [notify] if isinstance(notify, str) else list(notify)
    for word in given:
        check_type("one of notify", word, str, "NEVER, or any of SUCCESS, FAILURE, DELAY")
    words = frozenset(map(upper, given))
    if words != {"NEVER"} and not words <= _NOTIFY:
        raise InvalidInput(
            f"NOTIFY={','.join(sorted(words))} cannot be used",
            remedy="give NEVER alone, or any of SUCCESS, FAILURE, DELAY",
        )
    return words


def _check_orcpt(orcpt: str) -> None:
    _check_parameter("ORCPT", orcpt, MAX_ORCPT)
    if orcpt.find(";") < 1:
        raise InvalidInput(
            "ORCPT cannot be used",
            detail="it has no address type",
            remedy="write it as rfc822;user@example.org",
        )


# ``Recipient`` and ``Envelope`` are made for each message: a converter for each field, also for those
# that were not given, would take longer than all the rest.
_NO_WORDS: frozenset[str] = frozenset()


def _others(others: Mapping[str, Any]) -> Mapping[str, Any]:
    check_type("others", others, Mapping, "a dict of values by keyword")
    return others


@attrs.frozen(init=False)
class Recipient:
    """One recipient, and the reports about it that the sender requests.

    :param path: the address; text is parsed.
    :param notify: when to report (RFC 3461 section 4.1): ``NEVER`` alone, or any of ``SUCCESS``,
        ``FAILURE``, ``DELAY``; empty leaves it to the server.
    :param orcpt: the original recipient, ``addr-type;address`` (section 4.2), not encoded.
    :param others: values of an application's parameters of RCPT, by keyword
        (:class:`~twisted_sendmail.Extension`).
    :raises InvalidInput: an argument cannot be used.
    """

    path: ForwardPath
    notify: frozenset[str]
    orcpt: str | None
    others: Mapping[str, Any] = attrs.field(eq=False, repr=False)

    def __init__(
        self,
        path: str | ForwardPath,
        notify: str | Iterable[str] = (),
        orcpt: str | None = None,
        *,
        others: Mapping[str, Any] | None = None,
    ) -> None:
        if orcpt is not None:
            _check_orcpt(orcpt)
        self.__attrs_init__(
            path if isinstance(path, ForwardPath) else _path(path),
            _notify(notify) if notify else _NO_WORDS,
            orcpt,
            {} if others is None else _others(others),
        )

    @property
    def has_dsn(self) -> bool:
        """True if the DSN extension is needed."""
        return bool(self.notify) or self.orcpt is not None

    def __str__(self) -> str:
        return str(self.path)


class UnusableRecipient(Recipient):
    """An address of a header that cannot be used: it is refused, and the message goes to the others.

    :param text: the address as it stands in the header.
    :param error: why it cannot be used, and the remedy.
    """

    __slots__ = ("error", "text")
    text: str
    error: InvalidAddress

    def __init__(self, text: str, error: InvalidAddress) -> None:
        for name, value in (
            ("text", text),
            ("error", error),
            ("notify", frozenset()),
            ("orcpt", None),
            ("others", {}),
        ):
            object.__setattr__(self, name, value)

    @property
    def path(self) -> ForwardPath:
        """There is no path.

        :raises InvalidAddress: always.
        """
        raise self.error.copy()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnusableRecipient) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"UnusableRecipient({self.text!r})"


AnyRecipient = str | ForwardPath | Recipient


def _recipients(recipients: AnyRecipient | Iterable[AnyRecipient]) -> tuple[Recipient, ...]:
    if isinstance(recipients, (str, ForwardPath, Recipient)):
        recipients = (recipients,)
    elif isinstance(recipients, bytes) or not hasattr(recipients, "__iter__"):
        msg = f"recipients cannot be {type(recipients).__name__}"
        raise InvalidInput(msg, remedy="give an address, or a list of addresses")
    found = [given if isinstance(given, Recipient) else Recipient(given) for given in recipients]
    if len(found) == 1:
        return (found[0],)
    kept: dict[tuple[str, str], Recipient] = {}
    for recipient in found:
        box = recipient.path.mailbox
        kept.setdefault(box.key if box else ("", ""), recipient)
    if not kept:
        msg = "the message has no recipient"
        raise InvalidInput(msg, remedy="give recipients, or put them in To, Cc or Bcc")
    return tuple(kept.values())


def _ret(ret: str) -> str:
    word = upper(ret) if isinstance(ret, str) else ""
    if word not in {"FULL", "HDRS"}:
        raise InvalidInput("RET cannot be used", remedy="give FULL or HDRS")
    return word


@attrs.frozen(init=False)
class Envelope:
    """The arguments of MAIL and RCPT.

    :param sender: the reverse-path; text is parsed, ``""`` and ``None`` are the null reverse-path.
    :param recipients: at least one; text is parsed, and the same path is kept once.
    :param ret: ``FULL`` or ``HDRS``: how much a failure report returns (RFC 3461 section 4.3).
    :param envid: the envelope identifier, repeated in reports (section 4.4), not encoded.
    :param require_tls: send over TLS all the way, or not at all (RFC 8689).
    :param others: values of an application's parameters of MAIL, by keyword
        (:class:`~twisted_sendmail.Extension`).
    :raises InvalidInput: an argument cannot be used.
    """

    sender: ReversePath
    recipients: tuple[Recipient, ...]
    ret: str | None
    envid: str | None
    require_tls: bool
    others: Mapping[str, Any] = attrs.field(eq=False, repr=False)

    def __init__(
        self,
        sender: str | ReversePath | None,
        recipients: AnyRecipient | Iterable[AnyRecipient],
        *,
        ret: str | None = None,
        envid: str | None = None,
        require_tls: bool = False,
        others: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(sender, ReversePath):
            sender = ReversePath() if sender is None else ReversePath.parse(sender)
        if envid is not None:
            _check_parameter("ENVID", envid, MAX_ENVID)
        if require_tls is not False:
            check_flag("require_tls", require_tls)
        self.__attrs_init__(
            sender,
            _recipients(recipients),
            ret if ret is None else _ret(ret),
            envid,
            require_tls,
            {} if others is None else _others(others),
        )

    def to(self, recipients: tuple[Recipient, ...]) -> Envelope:
        """Return the envelope with other *recipients*."""
        return attrs.evolve(self, recipients=recipients)

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
        """True if the DSN extension is needed."""
        return (
            self.ret is not None
            or self.envid is not None
            or any(r.has_dsn for r in self.recipients)
        )


def _check_parameter(name: str, value: str, limit: int) -> None:
    check_type(name, value, str, "text")
    if not value or not value.isprintable():
        msg = f"{name} cannot be used"
        raise InvalidInput(msg, detail="it is empty or holds control characters")
    if len(value) > limit:
        msg = f"{name} cannot be used"
        raise InvalidInput(msg, detail=f"it is longer than {limit} characters")
