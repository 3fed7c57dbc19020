"""Checks of the arguments of public functions and classes.

A value of the wrong type is an error where it comes in, with what to give instead; the error names
its type and not the value, which may be a secret.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import chain
from os import PathLike
from typing import Any

from twisted_sendmail.smtp.errors import InvalidInput


def check_type(name: str, value: object, kinds: type | tuple[type, ...], give: str) -> None:
    """Check that *value* is of one of *kinds*.

    :raises InvalidInput: it is not; *give* is the remedy.
    """
    if not isinstance(value, kinds):
        raise InvalidInput(f"{name} cannot be {type(value).__name__}", remedy=f"give {give}")


def check_flag(name: str, value: object) -> None:
    """Check that *value* is True or False.

    :raises InvalidInput: it is not.
    """
    if not isinstance(value, bool):
        raise InvalidInput(f"the option '{name}' cannot be {value!r}", remedy="give True or False")


def check_positive(what: str, value: Any, give: str, *, whole: bool = False) -> None:
    """Check that *value* is a finite number above zero.

    :raises InvalidInput: it is not; *give* is the remedy.
    """
    number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not number or not 0 < value < float("inf"):
        raise InvalidInput(f"{what} cannot be {value!r}", remedy=f"give {give}")


def check_reactor(name: str, value: object) -> None:
    """Check that *value* keeps time, as a reactor and a ``Clock`` do.

    :raises InvalidInput: it does not.
    """
    if not (
        callable(getattr(value, "callLater", None)) and callable(getattr(value, "seconds", None))
    ):
        raise InvalidInput(
            f"{name} cannot be {type(value).__name__}",
            remedy="give twisted.internet.reactor, or in a test a twisted.internet.task.Clock",
        )


def check_texts(name: str, value: Any, give: str) -> None:
    """Check that *value* is a mapping of texts to texts.

    :raises InvalidInput: it is not; *give* is the remedy.
    """
    check_type(name, value, Mapping, give)
    for each in chain.from_iterable(value.items()):
        check_type(f"a text of {name}", each, str, give)


def check_callable(name: str, value: object, give: str) -> None:
    """Check that *value* can be called.

    :raises InvalidInput: it cannot; *give* is the remedy.
    """
    if not callable(value):
        raise InvalidInput(f"{name} cannot be {type(value).__name__}", remedy=f"give {give}")


def check_path(name: str, value: object) -> None:
    """Check that *value* is the path of a file.

    :raises InvalidInput: it is not.
    """
    check_type(name, value, (str, PathLike), "the path of a file")


def check_each(name: str, values: Any, kinds: type | tuple[type, ...], give: str) -> None:
    """Check that *values* is a collection of *kinds*, and no text.

    :raises InvalidInput: it is not; *give* is the remedy.
    """
    if isinstance(values, (str, bytes)) or not isinstance(values, Collection):
        raise InvalidInput(f"{name} cannot be {type(values).__name__}", remedy=f"give {give}")
    for each in values:
        check_type(f"one of {name}", each, kinds, give)
