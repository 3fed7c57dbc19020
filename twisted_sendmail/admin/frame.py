"""The frame around every page: head, who one is, the foot; and the small pages.

Pure: tags only.  Who may see what is decided by the site.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted.web.template import Tag, tags

from twisted_sendmail.admin.shown import address, clock, count, foreign
from twisted_sendmail.admin.style import STYLE
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.web.template import Flattenable

    from twisted_sendmail.queue import QueuedMessage

#: The icon: an envelope; in the page itself, so that nothing more is asked for.
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect x='2' y='6' "
    "width='28' height='20' rx='4' fill='%230a6a5c'/%3E%3Cpath d='M6 11l10 8 10-8' fill='none' stroke='%23fff' "
    "stroke-width='2.5' stroke-linecap='round'/%3E%3C/svg%3E"
)


@dataclass(frozen=True)
class Viewer:
    """Who looks, and at what."""

    #: The relay's own name.
    name: str
    now: float
    #: Is there a token, and so a way to sign in?
    can_sign_in: bool = False
    #: What each of his forms has to carry; None: he has not signed in.
    form_secret: str | None = None
    #: What he is told, once.
    notice: str | None = None

    @property
    def may_act(self) -> bool:
        """Did he show the token?"""
        return self.form_secret is not None


def document(viewer: Viewer, title: str, *body: Flattenable, refresh: str = "") -> Tag:
    """A whole page."""
    head = tags.head(
        tags.meta(charset="utf-8"),
        tags.title(printable(f"{title} – {viewer.name}")),
        tags.meta(name="viewport", content="width=device-width, initial-scale=1"),
        tags.meta(name="color-scheme", content="light dark"),
        tags.meta(name="robots", content="noindex"),
        tags.link(rel="icon", href=_ICON),
        # A browser does not undo escapes in a style sheet; it holds nothing that is escaped.
        tags.style(STYLE),
    )
    notice = (
        tags.div(tags.p(foreign(viewer.notice)), class_="notice", role="status")
        if viewer.notice
        else ""
    )
    return tags.html(
        head,
        tags.body(
            tags.a("To the content", href="#content", class_="skip"),
            tags.header(
                tags.p(
                    tags.a("Mail queue", href="/"), tags.span(foreign(viewer.name)), class_="name"
                ),
                _signing(viewer),
            ),
            Tag("main", attributes={"id": "content"}, children=[notice, *body]),
            tags.footer(f"As of {clock(viewer.now)} UTC. ", refresh),
        ),
        lang="en",
    )


def _signing(viewer: Viewer) -> Tag:
    if viewer.may_act:
        return action_form(
            viewer, "/sign-out", tags.button("Sign out", type="submit", class_="plain")
        )
    if viewer.can_sign_in:
        return tags.a("Sign in to act", href="/sign-in")
    return tags.span("Read only", class_="quiet")


def action_form(viewer: Viewer, where: str, *content: Flattenable, **attributes: str) -> Tag:
    """A form of who has signed in."""
    secret = tags.input(type="hidden", name="secret", value=viewer.form_secret or "")
    return tags.form(secret, *content, method="post", action=where, **attributes)


def sign_in_page(viewer: Viewer, trouble: str | None = None) -> Tag:
    """Where the token is given."""
    attributes = {"aria-describedby": "trouble", "aria-invalid": "true"} if trouble else {}
    return document(
        viewer,
        "Sign in",
        tags.section(
            tags.h1("Sign in"),
            tags.p("With the token that the relay was configured with.", class_="quiet"),
            tags.div(tags.p(foreign(trouble), id="trouble"), class_="notice bad", role="alert")
            if trouble
            else "",
            tags.form(
                tags.div(
                    tags.label("Token", for_="token"),
                    tags.input(
                        type="password",
                        name="token",
                        id="token",
                        required="required",
                        autofocus="autofocus",
                        autocomplete="current-password",
                        maxlength="1024",
                        **attributes,
                    ),
                    class_="field",
                ),
                tags.button("Sign in", type="submit", class_="first"),
                method="post",
                action="/sign-in",
            ),
            class_="sheet narrow",
        ),
    )


def trouble_page(viewer: Viewer, title: str, what: str) -> Tag:
    """What went wrong, in a line; foreign text may be in it."""
    return document(
        viewer,
        title,
        tags.section(
            tags.h1(title),
            tags.p(foreign(what, 500)),
            tags.p(tags.a("To the queue", href="/")),
            class_="sheet narrow",
        ),
    )


def confirmation_page(
    viewer: Viewer,
    action: str,
    ids: Sequence[str],
    back: str,
    words: tuple[str, str],
    *,
    some: Sequence[QueuedMessage],
) -> Tag:
    """Asks once more before mail is gone.

    :param words: what is done, as a verb, and what that means.
    :param some: the first of the messages.
    """
    verb, means = words
    first, _, rest = verb.partition(" ")
    title = f"{first} {count(len(ids), 'message')} {rest}".rstrip() + "?"
    named = [
        tags.li(
            tags.span(message.id, class_="id"),
            tags.br(),
            address(message.draft.envelope.sender),
            " to ",
            address((message.pending or message.recipients)[0].recipient.path),
        )
        for message in some
    ]
    behind = len(ids) - len(some)
    more = tags.li(f"and {behind:,} more") if behind > 0 else ""
    return document(
        viewer,
        title,
        tags.section(
            tags.h1(title),
            tags.p(foreign(means)),
            tags.ul(named, more, class_="plain"),
            action_form(
                viewer,
                "/act",
                [tags.input(type="hidden", name="id", value=name) for name in ids],
                tags.input(type="hidden", name="back", value=back),
                tags.input(type="hidden", name="sure", value="yes"),
                tags.div(
                    tags.button(verb, type="submit", name="action", value=action, class_="danger"),
                    tags.a("Leave as it is", href=back, class_="button"),
                    class_="bar",
                ),
            ),
            class_="sheet narrow",
        ),
    )
