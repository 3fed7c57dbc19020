"""The endpoint for operators: health, metrics and the queue page of the running relay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_sendmail.admin.site import AdminSite
from twisted_sendmail.daemon.listeners import listen
from twisted_sendmail.relay import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_sendmail.admin.local_mail import LocalMail
    from twisted_sendmail.daemon.config import Configuration
    from twisted_sendmail.relay import RelayService


class AdminEndpoint:
    """The admin site of *relay*, if the configuration asks for one.

    :param local_mail: returns the figures of the drop directory.
    """

    def __init__(
        self,
        reactor: Any,
        relay: RelayService,
        local_mail: Callable[[], LocalMail | None] = lambda: None,
    ) -> None:
        self._local_mail = local_mail
        self._reactor = reactor
        self._relay = relay
        self._settings: object = None
        self._site: AdminSite | None = None

    async def apply(self, configuration: Configuration) -> None:
        """Have the site that *configuration* describes. An unchanged one keeps its history.

        :raises SendmailError: the site cannot listen; then there is none.
        """
        admin, secret = configuration.admin, configuration.admin_token
        token = None if secret is None else secret.reveal()
        settings = (admin, token, configuration.name)
        if settings == self._settings:
            return
        await self.close()
        if admin is None or admin.endpoint is None:
            return
        site = AdminSite(
            self._reactor,
            self._relay.queue,
            self._relay,
            token=token,
            name=configuration.name,
            names=admin.names,
            private=admin.private,
            public=admin.public,
            local_mail=self._local_mail,
        )
        _ = await listen(self._reactor, admin.endpoint, site.listen)
        site.startService()
        # The relay emitted this event before there was an observer.
        recovered = await self._relay.ready()
        if recovered.interrupted:
            site.metrics(Interrupted(recovered.interrupted))
        self._relay.observers.append(site.metrics)
        self._site, self._settings = site, settings

    async def close(self) -> None:
        """Close the site."""
        self._settings = None
        site, self._site = self._site, None
        if site is not None:
            self._relay.observers.remove(site.metrics)
            await site.stopService()
