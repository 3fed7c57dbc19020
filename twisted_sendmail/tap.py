"""``twistd sendmail``: for now the loopback submission server, and nothing else.

It takes mail from clients on this machine, keeps it in memory or as files, and delivers
nothing.  The relay that will be here is not built yet.
"""

from __future__ import annotations
