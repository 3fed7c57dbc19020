"""HTML parsed into a tree, for tests of pages; parsing fails where it is not well-formed."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import TYPE_CHECKING

from twisted.web.template import flattenString

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.web.template import Flattenable

# Elements without an end tag.
_VOID = {"meta", "link", "input", "br", "wbr", "hr", "img"}


@dataclass
class Node:
    """An element, or the whole page."""

    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Node | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The text in the element, without style sheets."""
        if self.name == "style":
            return ""
        return "".join(c if isinstance(c, str) else c.text for c in self.children)

    def all(self, name: str, /, **attributes: str) -> list[Node]:
        """Return the descendants with this name and these attributes; ``class_`` is ``class``."""
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
        """Return the only such descendant."""
        (found,) = self.all(name, **attributes)
        return found

    def names(self) -> set[str]:
        """Return the names of the element and its descendants."""
        below = (child.names() for child in self.children if not isinstance(child, str))
        return {self.name}.union(*below)


class _Parser(HTMLParser):
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


def parse_html(html: bytes | str) -> Node:
    """Parse *html*."""
    parser = _Parser()
    parser.feed(html if isinstance(html, str) else html.decode("utf-8"))
    parser.close()
    assert parser._open == [parser.page]
    return parser.page


def render(content: Flattenable) -> Node:
    """Write *content* as HTML, and parse the result."""
    done: list[bytes] = []
    writing: Deferred[bytes] = flattenString(None, content)
    _ = writing.addCallback(done.append)
    return parse_html(done[0])
