"""The error of a module whose optional dependency is not installed."""

from __future__ import annotations


def missing_extra(extra: str, cause: ImportError) -> ImportError:
    """Return the error to raise when an import for an extra failed.

    :param extra: the name of the extra in ``setup.cfg``, which installs the dependency.
    :param cause: the error of the import.
    """
    return ImportError(
        f"twisted_sendmail.{extra} cannot be used: {cause}; "
        f"install it with: pip install 'twisted_sendmail[{extra}]'"
    )
