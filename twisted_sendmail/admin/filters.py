"""What part of the queue somebody wants to see: read from a query, written into one.

Pure.  Only what is understood is taken up, so that a link or a redirect made from it
holds nothing that a visitor slipped in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from twisted_sendmail.queue import Selection

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Messages on a page, and pages: behind that, narrow the filter.
PER_PAGE, PAGES = 50, 40
#: Characters of an address somebody may look for.
LONGEST = 320
#: The queues as operators know them, and as a person says it.
QUEUES = {
    "incoming": "New",
    "active": "Being delivered",
    "deferred": "Deferred",
    "hold": "On hold",
    "corrupt": "Set aside",
}


@dataclass(frozen=True)
class Filter:
    """Everything that is given has to fit; empty is any."""

    queue: str = ""
    recipient: str = ""
    sender: str = ""
    page: int = 1
    #: ``hour`` or ``days``: what the chart shows.
    span: str = "hour"

    @classmethod
    def read(cls, fields: Mapping[str, str]) -> Filter:
        """From the fields of a query or form; what makes no sense counts as not given."""
        queue, page = fields.get("queue", ""), fields.get("page", "1")
        return cls(
            queue if queue in QUEUES else "",
            _address(fields.get("recipient", "")),
            _address(fields.get("sender", "")),
            min(int(page), PAGES)
            if page.isascii() and page.isdigit() and len(page) < 5 and int(page)
            else 1,
            "days" if fields.get("span") == "days" else "hour",
        )

    @property
    def narrow(self) -> bool:
        """Is anything left out?"""
        return bool(self.queue or self.recipient or self.sender)

    @property
    def fields(self) -> dict[str, str]:
        """What :meth:`read` takes, without what is as it is anyway."""
        given = {"queue": self.queue, "recipient": self.recipient, "sender": self.sender}
        if self.page > 1:
            given["page"] = str(self.page)
        if self.span != "hour":
            given["span"] = self.span
        return {name: value for name, value in given.items() if value}

    def link(self, **changes: str | int) -> str:
        """The address of the page with this filter, and *changes* to it."""
        fields = replace(self, **changes).fields  # type: ignore[arg-type]  # they are fields of ours
        return f"/?{urlencode(fields)}" if fields else "/"

    def selection(self, limit: int | None) -> Selection:
        """The same as the spool knows it."""
        null = self.sender == "<>"
        return Selection(
            queue=self.queue or None,
            recipient=self.recipient or None,
            sender="" if null else self.sender or None,
            limit=limit,
        )


def _address(text: str) -> str:
    return text.strip()[:LONGEST] if text.isprintable() else ""
