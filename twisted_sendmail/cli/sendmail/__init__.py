"""The replacement for ``sendmail(8)``, ``mailq`` and ``newaliases``."""

from twisted_sendmail.cli.sendmail.script import console

__all__ = ["console"]
