"""SASLprep (RFC 4013): one spelling for user names and passwords that can be typed in several.

Errors do not quote the text.
"""

from __future__ import annotations

import stringprep
from unicodedata import ucd_3_2_0

# RFC 4013 section 2.3.
_PROHIBITED = (
    (stringprep.in_table_c12, "a space that is not ASCII"),
    (stringprep.in_table_c21_c22, "a control character"),
    (stringprep.in_table_c3, "a character for private use"),
    (stringprep.in_table_c4, "a code point that is no character"),
    (stringprep.in_table_c5, "a surrogate"),
    (stringprep.in_table_c6, "a character that is not for plain text"),
    (stringprep.in_table_c7, "a character not for canonical text"),
    (stringprep.in_table_c8, "a character that changes the display"),
    (stringprep.in_table_c9, "a tagging character"),
)


def saslprep(text: str, *, unassigned: bool = False) -> str:
    """Return *text* prepared.

    :param unassigned: allow characters newer than Unicode 3.2, as is right for a query (a user
        name) and wrong for a stored string (a password).
    :raises ValueError: the text cannot be prepared.
    """
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in text
        if not stringprep.in_table_b1(character)
    )
    prepared = ucd_3_2_0.normalize("NFKC", mapped)
    if not prepared:
        raise ValueError("nothing is left of it")
    for prohibited, what in _PROHIBITED:
        if any(map(prohibited, prepared)):
            raise ValueError(f"it has {what}")
    if not unassigned and any(map(stringprep.in_table_a1, prepared)):
        raise ValueError("it has a character newer than Unicode 3.2")
    # RFC 3454 section 6.
    if any(map(stringprep.in_table_d1, prepared)) and (
        any(map(stringprep.in_table_d2, prepared))
        or not stringprep.in_table_d1(prepared[0])
        or not stringprep.in_table_d1(prepared[-1])
    ):
        raise ValueError("it mixes left-to-right and right-to-left")
    return prepared
