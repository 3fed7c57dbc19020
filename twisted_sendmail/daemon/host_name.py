"""What this machine is called in mail where nobody has said it: by the relay and by its stand-in alike.

It may ask the name service, and so may block: not for the reactor's thread while it runs.

RFC 5321 section 2.3.5 (fully-qualified domain names).
"""

from __future__ import annotations

import socket

from twisted_sendmail.smtp import domain_name


def host_name() -> str:
    """The machine's full name; the short one where there is no other.

    :raises InvalidInput: it cannot be a mail host's.
    """
    name = socket.gethostname()
    if "." not in name.strip("."):
        # It may ask the network; "localhost" is no answer.
        full = socket.getfqdn()
        name = name if full.startswith("localhost") else full
    return domain_name(name)
