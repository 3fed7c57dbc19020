"""The admin site where the configuration wants it; another one when that changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_sendmail.admin.site import AdminSite
from twisted_sendmail.daemon.door import cannot_listen, remove_stale_socket
from twisted_sendmail.daemon.endpoint_text import server_endpoint
from twisted_sendmail.daemon.relay_view import RelayView
from twisted_sendmail.relay import Interrupted
from twisted_sendmail.smtp import SendmailError

if TYPE_CHECKING:
    from twisted_sendmail.daemon.config import Configuration
    from twisted_sendmail.relay import Observer, RelayService


class AdminDoor:
    """The site, if there is one.

    :param relay: what is watched; it runs while the site does.
    """

    def __init__(self, reactor: Any, relay: RelayService) -> None:
        self._reactor = reactor
        self._relay = relay
        self._said: object = None
        self._site: AdminSite | None = None
        self._observer: Observer | None = None

    async def set(self, configuration: Configuration) -> None:
        """Have the site that *configuration* describes; one that stays as it is keeps its memory.

        :raises SendmailError: it is not to be had; then there is none.
        """
        said = _said(configuration)
        if said == self._said:
            return
        await self.close()
        admin = configuration.admin
        if admin is None:
            return
        relay = self._relay
        site = AdminSite(
            self._reactor,
            relay.queue,
            RelayView(self._reactor, relay),
            token=None if admin.token is None else admin.token.reveal(),
            name=configuration.name,
            names=admin.names,
            private=admin.private,
            public=admin.public,
        )
        if admin.endpoint.path is not None:
            remove_stale_socket(admin.endpoint.path)
        try:
            _ = await site.listen(server_endpoint(self._reactor, admin.endpoint))
        except SendmailError:
            raise
        except Exception as e:  # noqa: BLE001 - endpoints fail as they like
            raise cannot_listen(admin.endpoint.description, e) from None
        site.startService()
        observer = site.metrics
        self._observer = observer
        # The relay told of these before there was anybody to hear it.
        recovered = await relay.ready()
        if recovered.interrupted:
            observer(Interrupted(recovered.interrupted))
        relay.observers.append(self._observer)
        self._site, self._said = site, said

    async def close(self) -> None:
        """There is none any more."""
        self._said = None
        observer, self._observer = self._observer, None
        if observer is not None:
            self._relay.observers.remove(observer)
        site, self._site = self._site, None
        if site is not None:
            await site.stopService()


def _said(configuration: Configuration) -> object:
    admin = configuration.admin
    if admin is None:
        return None
    token = None if admin.token is None else admin.token.reveal()
    return (admin.endpoint, token, admin.private, admin.public, admin.names, configuration.name)
