"""What a page says, read as a browser reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import TYPE_CHECKING

from twisted.web.template import flattenString

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.web.template import Flattenable

# Those that are never closed.
_VOID = {"meta", "link", "input", "br", "wbr", "hr", "img"}


@dataclass
class Node:
    """An element, or the page."""

    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Node | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text in it, without that of style sheets."""
        if self.name == "style":
            return ""
        return "".join(c if isinstance(c, str) else c.text for c in self.children)

    def all(self, name: str, /, **attributes: str) -> list[Node]:
        """Every element below it of that name and those attributes; ``_`` ends reserved words."""
        found: list[Node] = []
        for child in self.children:
            if isinstance(child, str):
                continue
            wanted = {key.rstrip("_"): value for key, value in attributes.items()}
            if child.name == name and wanted.items() <= child.attributes.items():
                found.append(child)
            found += child.all(name, **attributes)
        return found

    def one(self, name: str, /, **attributes: str) -> Node:
        """The only one of those."""
        (found,) = self.all(name, **attributes)
        return found

    def names(self) -> set[str]:
        """The names of all elements."""
        below = (child.names() for child in self.children if not isinstance(child, str))
        return {self.name}.union(*below)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Node("page")
        self._open = [self.page]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs})
        self._open[-1].children.append(node)
        if tag not in _VOID:
            self._open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs})
        self._open[-1].children.append(node)

    def handle_endtag(self, tag: str) -> None:
        closed = self._open.pop()
        assert closed.name == tag, f"<{closed.name}> is closed by </{tag}>"

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)


def read(html: bytes | str) -> Node:
    """Read *html*, which has to be well-formed."""
    reader = _Reader()
    reader.feed(html if isinstance(html, str) else html.decode("utf-8"))
    reader.close()
    assert [reader.page] == reader._open
    return reader.page


def drawn(content: Flattenable) -> Node:
    """Write *content*, and read it."""
    done: list[bytes] = []
    writing: Deferred[bytes] = flattenString(None, content)
    _ = writing.addCallback(done.append)
    return read(done[0])
