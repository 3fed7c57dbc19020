"""Count the code that one message crosses: files, functions, calls and depth.

  python crossings.py [--names]

``submit``: one message over STARTTLS and AUTH; the server runs in another thread and is
not counted.  ``relay``: ``RelayService.send`` until the message is delivered; the work of
the queue's thread is counted too, importing and starting the relay are not.
"""

import argparse
import os
import sys
import tempfile
import threading
from collections import Counter
from email.message import EmailMessage
from typing import Any

from twisted.internet.task import deferLater, react

import twisted_sendmail
from twisted_sendmail import RelayService, SubmissionServer, TLSTrust, submit
from twisted_sendmail.testing import BackgroundServer

PACKAGE = os.path.dirname(os.path.abspath(twisted_sendmail.__file__)) + os.sep


class Crossings:
    """Counts the calls of the package's functions in this thread and in threads started later."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        self.depth = 0

    def _profile(self, frame: Any, event: str, argument: object) -> None:
        if event != "call":
            return
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGE) or "testing" + os.sep in code.co_filename:
            return
        self.calls[code.co_filename[len(PACKAGE) :], code.co_qualname] += 1
        depth = 0
        while frame is not None:
            depth += frame.f_code.co_filename.startswith(PACKAGE)
            frame = frame.f_back
        self.depth = max(self.depth, depth)

    def start(self) -> None:
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    def stop(self) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def show(self, name: str, *, names: bool) -> None:
        files = {file for file, _ in self.calls}
        print(
            f"{name}: {len(files)} files, {len(self.calls)} functions,"
            f" {self.calls.total()} calls, depth {self.depth}"
        )
        if names:
            for (file, function), count in sorted(self.calls.items()):
                print(f"  {file}: {function} × {count}")


def message() -> EmailMessage:
    made = EmailMessage()
    made["From"] = "alice@example.test"
    made["To"] = "bob@example.test"
    made["Subject"] = "Greetings"
    made.set_content("One line.\n")
    return made


async def main(reactor: Any, *arguments: str) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", action="store_true", help="name every function")
    options = parser.parse_args(arguments)
    with BackgroundServer(users={"alice": "secret"}) as peer:
        server = SubmissionServer.from_url(
            peer.url.replace("://", "://alice@"),
            password="secret",
            trust=TLSTrust(ca_file=peer.ca_file),
        )
        await submit(reactor, server, message())
        # In a turn of the reactor of its own: the frames of the first message do not count.
        await deferLater(reactor, 0)
        crossings = Crossings()
        crossings.start()
        await submit(reactor, server, message())
        crossings.stop()
        crossings.show("submit", names=options.names)
        with tempfile.TemporaryDirectory() as directory:
            # The queue's thread starts with the relay, so it is profiled from its first call.
            crossings = Crossings()
            threading.setprofile(crossings._profile)
            relay = RelayService.to(reactor, os.path.join(directory, "queue"), server)
            relay.startService()
            await relay.ready()
            crossings.calls.clear()
            sys.setprofile(crossings._profile)
            queued = await relay.send(message())
            await queued.delivered()
            crossings.stop()
            crossings.show("relay", names=options.names)
            await relay.stopService()


if __name__ == "__main__":
    react(main, sys.argv[1:])
