"""Values of which several are made for every message: frozen for the type checker alone.

A frozen dataclass sets each of its fields by a call of ``object.__setattr__``, which takes
three times as long as to set it.  These are made as fast as any object; that nobody changes
them is seen to by the type checker.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Any:
        """What the type checker has to know, and nobody else."""
        return lambda decorator: decorator


_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[_T]) -> type[_T]:
    """A dataclass whose fields are not to be set again: equal, and hashed, by them."""
    return dataclass(unsafe_hash=True)(cls)
