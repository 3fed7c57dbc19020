"""How an AUTH exchange says no."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.smtp.reply import Reply

if TYPE_CHECKING:
    from typing import Final

#: Wrong user, wrong password, wrong proof: the client learns no more (RFC 4954 section 6).
FAILED: Final = Reply(535, ("5.7.8 Authentication failed",))


class AuthRefused(Exception):
    """The exchange is over; ``reply`` is what the client gets."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply
