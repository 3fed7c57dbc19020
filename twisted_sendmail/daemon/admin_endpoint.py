"""The endpoint for operators: health, metrics and the queue page of the running relay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_sendmail.admin.site import AdminSite
from twisted_sendmail.daemon.listeners import listen
from twisted_sendmail.relay import Interrupted

if TYPE_CHECKING:
    from twisted_sendmail.daemon.config import Configuration
    from twisted_sendmail.relay import Observer, RelayService


class AdminEndpoint:
    """The admin site of *relay*, if the configuration wants one."""

    def __init__(self, reactor: Any, relay: RelayService) -> None:
        self._reactor = reactor
        self._relay = relay
        self._settings: object = None
        self._site: AdminSite | None = None
        self._observer: Observer | None = None

    async def apply(self, configuration: Configuration) -> None:
        """Have the site that *configuration* describes. An unchanged one keeps its history.

        :raises SendmailError: the site cannot listen; then there is none.
        """
        settings = (configuration.admin, configuration.admin_token, configuration.name)
        if settings == self._settings:
            return
        await self.close()
        admin, token = configuration.admin, configuration.admin_token
        if admin is None or admin.endpoint is None:
            return
        site = AdminSite(
            self._reactor,
            self._relay.queue,
            self._relay,
            token=None if token is None else token.reveal(),
            name=configuration.name,
            names=admin.names,
            private=admin.private,
            public=admin.public,
        )
        _ = await listen(self._reactor, admin.endpoint, site.listen)
        site.startService()
        observer = self._observer = site.metrics
        # The relay emitted this event before there was an observer.
        recovered = await self._relay.ready()
        if recovered.interrupted:
            observer(Interrupted(recovered.interrupted))
        self._relay.observers.append(observer)
        self._site, self._settings = site, settings

    async def close(self) -> None:
        """Close the site."""
        self._settings = None
        observer, self._observer = self._observer, None
        if observer is not None:
            self._relay.observers.remove(observer)
        site, self._site = self._site, None
        if site is not None:
            await site.stopService()
