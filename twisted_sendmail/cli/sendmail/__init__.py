"""The replacement for ``sendmail(8)``, ``mailq`` and ``newaliases``."""

from twisted_sendmail.cli.sendmail.command import console, main

__all__ = ["console", "main"]
