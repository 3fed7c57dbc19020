"""Submit mail from Twisted programs (RFC 6409): verified TLS, AUTH, an honest outcome per recipient."""

from __future__ import annotations

from importlib.metadata import version

__all__ = ["__version__"]

__version__: str = version("twisted_sendmail")
