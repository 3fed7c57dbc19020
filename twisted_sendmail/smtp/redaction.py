"""Secrets taken out of what a server says: it may echo what it was sent in AUTH.

It knows texts, not who keeps them.  What it cannot know is a secret changed on the
way, such as one with other capital letters.
"""

from __future__ import annotations

import re
from base64 import b64encode

#: What stands for a secret.
MASK = "****"
#: Shorter secrets are not looked for: they would be found in every word.
SHORTEST = 4

_BEARER = re.compile(rb"auth=Bearer ([!-~]+)")


class Redaction:
    """What may not be shown."""

    __slots__ = ("_forms", "_octets")

    def __init__(self) -> None:
        self._forms: list[str] = []
        self._octets: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self._forms)

    def conceal(self, secret: str) -> None:
        """Mask *secret* from now on, as it is and in base64."""
        octets = secret.encode("utf-8", "replace")
        encoded, forms = b64encode(octets), self._forms
        for form, as_octets in ((secret, octets), (encoded.decode("ascii"), encoded)):
            if len(form) >= SHORTEST and form not in forms:
                forms.append(form)
                self._octets.append(as_octets)
        # The longest first: one may be a part of another.
        forms.sort(key=len, reverse=True)

    def conceal_response(self, response: bytes) -> None:
        """Mask a SASL *response*, and the secret in it where its place is known."""
        # PLAIN is authzid NUL user NUL password; a response without NUL is all secret.
        last = response.rpartition(b"\0")[2]
        for secret in (response, last, *_BEARER.findall(response)):
            if len(secret) >= SHORTEST:
                self.conceal(secret.decode("utf-8", "replace"))

    def concerns(self, octets: bytes) -> bool:
        """May there be a secret in *octets*?"""
        for form in self._octets:  # noqa: SIM110 - asked for each read, and any() takes longer
            if form in octets:
                return True
        return False

    def mask(self, text: str) -> str:
        """Return *text* without any secret."""
        for form in self._forms:
            text = text.replace(form, MASK)
        return text
