"""What the reply to EHLO says, from the settings and from whether there is TLS.

RFC 5321 section 4.1.1.1, RFC 1870 (SIZE), RFC 3207, RFC 4954, RFC 9422 (LIMITS).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.smtp.reply import Reply

if TYPE_CHECKING:
    from twisted_sendmail.smtp.server_settings import ServerSettings


def offered(settings: ServerSettings, *, tls: bool) -> dict[str, str]:
    """EHLO keyword to its parameters, in the order in which they are said."""
    words = dict.fromkeys(settings.extensions, "")
    if not tls:
        # RFC 8689 section 2: only inside TLS.
        words.pop("REQUIRETLS", None)
        if settings.starttls:
            words["STARTTLS"] = ""
    words["SIZE"] = str(settings.max_size)
    if settings.mechanisms and (tls or settings.clear_auth):
        words["AUTH"] = " ".join(settings.mechanisms)
    limits = f"RCPTMAX={settings.max_recipients}"
    if settings.max_messages is not None:
        limits = f"MAILMAX={settings.max_messages} {limits}"
    words["LIMITS"] = limits
    return words


def hello_reply(settings: ServerSettings, *, tls: bool) -> Reply:
    """The whole reply."""
    words = offered(settings, tls=tls)
    return Reply(250, (settings.host, *(f"{k} {v}".rstrip() for k, v in words.items())))
