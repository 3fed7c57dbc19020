"""Every key of a configuration: its kind, and what it is when it is not written.

The one list: reading, the suggestions for misspelt keys, and the test of the reference
page all go by it.  What the keys mean is on that page.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from twisted_sendmail.daemon import config_types as values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted_sendmail.daemon.config_types import Kind


@dataclass(frozen=True)
class Key:
    """One key."""

    kind: Kind
    #: What it is when it is not written, as the file would have it; None: absent.
    default: object = None
    required: bool = False


@dataclass(frozen=True)
class Section:
    """The keys of a table."""

    keys: dict[str, Key]
    #: Tables below it: ``[name]``.
    tables: dict[str, Section] = field(default_factory=dict)
    #: Lists of tables below it: ``[[name]]``.
    arrays: dict[str, Section] = field(default_factory=dict)
    #: A text in place of the table stands for this key.
    short: str | None = None

    def names(self) -> list[str]:
        """Everything that may be written here."""
        return [*self.keys, *self.tables, *self.arrays]

    def dotted(self, before: str = "") -> Iterator[str]:
        """Every key, here and below."""
        for name in self.keys:
            yield before + name
        for name, section in {**self.tables, **self.arrays}.items():
            yield from section.dotted(f"{before}{name}.")


def _secret(name: str) -> dict[str, Key]:
    """The ways to give a secret."""
    return {
        f"{name}-file": Key(values.path),
        f"{name}-credential": Key(values.text),
        f"{name}-command": Key(values.command),
        f"{name}-shell": Key(values.text),
        f"{name}-environment": Key(values.text),
    }


SMARTHOST = Section(
    {
        "url": Key(values.text, required=True),
        "user": Key(values.text),
        **_secret("password"),
        "bearer": Key(values.flag, default=False),
        "mechanisms": Key(values.texts),
        "ca-file": Key(values.readable_file),
        "fingerprint": Key(values.text),
        "server-name": Key(values.host_name),
        "client-certificate": Key(values.readable_file),
        "client-key": Key(values.readable_file),
        "ignore-extensions": Key(values.texts, default=[]),
        "priority": Key(values.any_whole, default=0),
    }
)

DELIVERY = {
    "connections": Key(values.whole),
    "messages-per-connection": Key(values.whole),
    "idle": Key(values.duration),
    "age": Key(values.duration),
    "window": Key(values.whole),
    "pipeline-after-data": Key(values.flag),
    "rate": Key(values.number),
    "burst": Key(values.whole),
    "down-first": Key(values.duration),
    "down-most": Key(values.duration),
}

LISTEN = Section(
    {
        "endpoint": Key(values.text, required=True),
        "certificate": Key(values.readable_file),
        "key": Key(values.readable_file),
        "implicit-tls": Key(values.flag, default=False),
        "accounts": Key(values.readable_file),
        "trusted": Key(values.networks, default=["127.0.0.0/8", "::1", "unix"]),
        "repair": Key(values.flag, default=False),
        "allow-early-input": Key(values.early_input, default=[]),
    },
    short="endpoint",
)

ROOT = Section(
    {
        "name": Key(values.host_name),
        "queue": Key(values.path, required=True),
        "submission-socket": Key(values.path),
        "submission-mode": Key(values.permissions, default="0600"),
        "world-readable-secrets": Key(values.flag, default=False),
    },
    arrays={
        "listen": LISTEN,
        "smarthost": SMARTHOST,
        "route": Section(
            {
                "name": Key(values.text, required=True),
                "senders": Key(values.senders, required=True),
                **DELIVERY,
            },
            arrays={"smarthost": SMARTHOST},
        ),
    },
    tables={
        "delivery": Section(DELIVERY),
        "retry": Section(
            {
                "first": Key(values.duration, default="300 s"),
                "most": Key(values.duration, default="4000 s"),
                "lifetime": Key(values.duration, default="5 days"),
                "report-lifetime": Key(values.duration, default="1 day"),
                "warn-after": Key(values.duration_or_never, default="4 hours"),
                "jitter": Key(values.share, default=0.15),
            }
        ),
        "bounce": Section(
            {
                "postmaster": Key(values.address),
                "rate": Key(values.number, default=1),
                "burst": Key(values.whole, default=100),
                "keep-undeliverable": Key(values.duration_or_never, default="5 days"),
            }
        ),
        "rewrite": Section(
            {
                "complete": Key(values.flag, default=True),
                "all-mail-from": Key(values.address),
                "senders": Key(values.text_map, default={}),
                "masquerade": Key(values.texts, default=[]),
                "append-domain": Key(values.host_name),
                "local-mail-to": Key(values.address),
                "local-domains": Key(values.texts, default=[]),
            }
        ),
        "limits": Section(
            {
                "message-size": Key(values.size, default="50 MiB"),
                "header-size": Key(values.size, default="256 KiB"),
                "recipients": Key(values.whole, default=1000),
                "hops": Key(values.whole, default=100),
                "connections": Key(values.whole, default=1000),
                "connections-per-address": Key(values.whole, default=100),
                "failed-login": Key(values.duration, default="2 s"),
                "stop-grace": Key(values.duration, default="30 s"),
            }
        ),
        "admin": Section(
            {
                "endpoint": Key(values.text),
                "token-file": Key(values.path),
                "token-credential": Key(values.text),
                "token-environment": Key(values.text),
                "private": Key(values.flag, default=False),
                "public": Key(values.flag, default=False),
                "names": Key(values.texts, default=[]),
            }
        ),
        "log": Section(
            {
                "dialogue": Key(values.flag, default=False),
                "json-file": Key(values.path),
            }
        ),
    },
)
