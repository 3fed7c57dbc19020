"""What is wrong with a configuration, in one line: where, which key, why, and what to do.

Every mistake that can be found before anything is opened is this error.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from twisted_sendmail.smtp import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping


class ConfigurationError(InvalidInput):
    """The relay cannot be run like this; nothing was opened or changed."""

    #: The exit status it means (``sysexits.h``).
    status: int = os.EX_CONFIG


@dataclass(frozen=True)
class ConfigSource:
    """Where a configuration is written.

    :param name: a file, or ``the command line``.
    :param flags: the flag that stands for a key, where the keys are not written themselves.
    """

    name: str
    flags: Mapping[str, str] = field(default_factory=dict)

    def error(self, key: str, why: str, remedy: str = "") -> ConfigurationError:
        """The error about *key* (dotted; empty for the whole)."""
        plain = ".".join(part.partition("#")[0] for part in key.split("."))
        shown = self.flags.get(plain, key)
        what = f"{self.name}: {shown}" if shown else self.name
        return ConfigurationError(what, detail=why, remedy=remedy)


@dataclass
class Wrong(Exception):
    """A value cannot be used; whoever knows its key makes a :class:`ConfigurationError` of it."""

    why: str
    remedy: str = ""
