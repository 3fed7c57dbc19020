"""A token endpoint of OAuth 2, and a device authorization endpoint, on the loopback interface."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_plus

from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import Site

from twisted_sendmail import ServerTLS

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
SECRET, REFRESH = "kein-Wort-davon-42", "1//refresh-me"


class Endpoint(Resource):
    """A token endpoint with one client and one refresh token, which it changes on request."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        self.refresh = REFRESH
        self.rotates = False
        self.life: object = 3600
        self.forms: list[dict[str, str]] = []
        #: The client sends its secret in a header.
        self.basic = False
        #: Called instead of the grant.
        self.fault: Callable[[Request], Any] | None = None
        self.device = DeviceEndpoint()

    def render_POST(self, request: Request) -> Any:
        form = {name.decode(): values[0].decode() for name, values in request.args.items()}
        self.forms.append(form)
        if self.fault is not None:
            return self.fault(request)
        given = form.get("client_secret")
        if self.basic:
            given = None if given else unquote_plus(request.getPassword().decode())
        if given != SECRET:
            return answer(request, 401, error="invalid_client")
        if form["grant_type"] == "refresh_token":
            if form["refresh_token"] != self.refresh:
                why = f"no such token: {form['refresh_token']} \x1b[31m"
                return answer(request, 400, error="invalid_grant", error_description=why)
            if self.rotates:
                self.refresh = f"{REFRESH}-{len(self.forms)}"
        elif form["grant_type"] == DEVICE_GRANT:
            return self.device.poll(request, form, self.refresh)
        fields = {"access_token": f"access-{len(self.forms)}", "token_type": "bearer"}
        if self.rotates:
            fields["refresh_token"] = self.refresh
        return answer(request, 200, expires_in=self.life, **fields)


class DeviceEndpoint(Resource):
    """A device authorization endpoint, and the errors that the token endpoint answers before it gives a token."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        self.forms: list[dict[str, str]] = []
        self.answer: dict[str, object] = {
            "device_code": "device-1",
            "user_code": "ABCD-EFGH",
            "verification_uri": "https://login.example.org/device",
            "expires_in": 900,
            "interval": 5,
        }
        self.errors: list[str] = []
        self.gives_refresh_token = True

    def render_POST(self, request: Request) -> Any:
        self.forms.append(
            {name.decode(): values[0].decode() for name, values in request.args.items()}
        )
        return answer(request, 200, **self.answer)

    def poll(self, request: Request, form: dict[str, str], refresh: str) -> bytes:
        assert form["device_code"] == self.answer["device_code"]
        if self.errors:
            return answer(request, 400, error=self.errors.pop(0))
        fields = {"refresh_token": refresh} if self.gives_refresh_token else {}
        return answer(request, 200, access_token="access-0", token_type="bearer", **fields)


def answer(request: Request, status: int, **fields: object) -> bytes:
    request.setResponseCode(status)
    request.setHeader("Content-Type", "application/json")
    return json.dumps(fields).encode()


def listen(reactor: Any, server: Endpoint, tls: ServerTLS | None = None) -> Any:
    """Listen on a free port, with the endpoint at ``/token``."""
    root = Resource()
    root.putChild(b"token", server)
    root.putChild(b"device", server.device)
    site: Any = Site(root)
    if tls is not None:
        site = TLSMemoryBIOFactory(tls, False, site)
    return reactor.listenTCP(0, site, interface="127.0.0.1")
