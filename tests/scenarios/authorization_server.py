"""An authorization server of Authlib, in a process of its own on the loopback interface.

Each refresh token is used once; the first is ``granted``.  Codes of the device flow are approved or denied by the
test, in place of a person.  Mail servers ask whether an access token is valid (RFC 7662).
"""

from __future__ import annotations

import os
import subprocess
from http.client import HTTPConnection
from typing import TYPE_CHECKING

from tests.scenarios.peers import fake_time_library, python_of

if TYPE_CHECKING:
    from pathlib import Path

_PROGRAM = '''
import os
import sys
import time

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin, TokenMixin, grants
from authlib.oauth2.rfc7662 import IntrospectionEndpoint
from authlib.oauth2.rfc8628 import (
    DeviceAuthorizationEndpoint,
    DeviceCodeGrant,
    DeviceCredentialDict,
)
from flask import Flask, request
from werkzeug.serving import make_server

SECRET = "kein-Wort-davon-42"
METHODS = ["client_secret_post", "client_secret_basic"]


class Client(ClientMixin):
    """The one client."""

    client_id = "mailer"

    def get_client_id(self):
        return self.client_id

    def get_default_redirect_uri(self):
        return None

    def get_allowed_scope(self, scope):
        return " ".join(each for each in (scope or "").split() if each == "mail")

    def check_redirect_uri(self, redirect_uri):
        return False

    def check_client_secret(self, client_secret):
        return client_secret == SECRET

    def check_endpoint_auth_method(self, method, endpoint):
        return method in METHODS

    def check_response_type(self, response_type):
        return False

    def check_grant_type(self, grant_type):
        return grant_type in {"refresh_token", "client_credentials", DeviceCodeGrant.GRANT_TYPE}


class Token(TokenMixin):
    """A grant, with its current refresh token."""

    def __init__(self, refresh_token):
        self.refresh_token = refresh_token
        self.revoked = False

    def check_client(self, client):
        return True

    def get_scope(self):
        return "mail"

    def get_expires_in(self):
        return 3600

    def is_expired(self):
        return False

    def is_revoked(self):
        return self.revoked


GRANTS = {"granted": Token("granted")}


class RefreshTokenGrant(grants.RefreshTokenGrant):
    """Each refresh token is used once."""

    TOKEN_ENDPOINT_AUTH_METHODS = METHODS
    INCLUDE_NEW_REFRESH_TOKEN = True

    def authenticate_refresh_token(self, refresh_token):
        found = GRANTS.get(refresh_token)
        return None if found is None or found.revoked else found

    def authenticate_user(self, refresh_token):
        return "jane"

    def revoke_old_credential(self, refresh_token):
        refresh_token.revoked = True


class ClientCredentialsGrant(grants.ClientCredentialsGrant):
    """For the client itself."""

    TOKEN_ENDPOINT_AUTH_METHODS = METHODS


class DeviceEndpoint(DeviceAuthorizationEndpoint):
    """Codes to enter elsewhere."""

    CLIENT_AUTH_METHODS = METHODS
    INTERVAL = 1

    def get_verification_uri(self):
        return "https://login.example.org/device"

    def save_device_credential(self, client_id, scope, data):
        data = {**data, "client_id": client_id, "scope": scope}
        data["expires_at"] = time.time() + data["expires_in"]
        CODES[data["device_code"]] = DeviceCredentialDict(data)


class DeviceGrant(DeviceCodeGrant):
    """The test approves or denies a code."""

    TOKEN_ENDPOINT_AUTH_METHODS = METHODS

    def query_device_credential(self, device_code):
        return CODES.get(device_code)

    def query_user_grant(self, user_code):
        return ("jane", DECISIONS[user_code]) if user_code in DECISIONS else None

    def should_slow_down(self, credential):
        return False


class Introspection(IntrospectionEndpoint):
    """Mail servers ask it about access tokens."""

    CLIENT_AUTH_METHODS = METHODS

    def check_permission(self, token, client, request):
        return True

    def query_token(self, token_string, token_type_hint):
        return token_string if token_string in ACCESS else None

    def introspect_token(self, token):
        return {"active": True, "username": "jane", "scope": "mail"}

    def create_introspection_payload(self, token):
        return self.introspect_token(token) if token else {"active": False}


CODES = {}
DECISIONS = {}
ACCESS = set()
COUNT = [0]
DELAY = [0.0]


def save_token(token, request):
    COUNT[0] += 1
    ACCESS.add(token["access_token"])
    if token.get("refresh_token"):
        GRANTS[token["refresh_token"]] = Token(token["refresh_token"])


app = Flask(__name__)
app.config["OAUTH2_REFRESH_TOKEN_GENERATOR"] = True
server = AuthorizationServer(
    app,
    query_client=lambda client_id: Client() if client_id == Client.client_id else None,
    save_token=save_token,
)
server.register_grant(RefreshTokenGrant)
server.register_grant(ClientCredentialsGrant)
server.register_grant(DeviceGrant)
server.register_endpoint(DeviceEndpoint)
server.register_endpoint(Introspection)


@app.post("/token")
def token():
    time.sleep(DELAY[0])
    return server.create_token_response()


@app.post("/device")
def device():
    return server.create_endpoint_response(DeviceEndpoint.ENDPOINT_NAME)


@app.post("/introspect")
def introspect():
    return server.create_endpoint_response(Introspection.ENDPOINT_NAME)


@app.post("/decide/<code>/<decision>")
def decide(code, decision):
    DECISIONS[code] = decision == "approve"
    return ""


@app.post("/approve-all")
def approve_all():
    DECISIONS.update({each["user_code"]: True for each in CODES.values()})
    return ""


@app.post("/expire")
def expire():
    ACCESS.clear()
    return ""


@app.post("/delay/<seconds>")
def delay(seconds):
    DELAY[0] = float(seconds)
    return ""


@app.post("/count")
def count():
    return str(COUNT[0])


@app.post("/revoke-all")
def revoke_all():
    for each in GRANTS.values():
        each.revoked = True
    return ""


listening = make_server("127.0.0.1", 0, app, threaded=True)
print(listening.port, flush=True)
sys.stderr = open(os.devnull, "w")
listening.serve_forever()
'''


class AuthorizationServer:
    """The running server; :meth:`stop` ends it.

    :param skew: the offset of its clock, as libfaketime takes it, such as ``+2d``.
    """

    def __init__(self, folder: Path, *, skew: str = "") -> None:
        program = folder / "authorization_server.py"
        program.write_text(_PROGRAM)
        env = dict(os.environ)
        if skew:
            env |= {"LD_PRELOAD": str(fake_time_library()), "FAKETIME": skew}
        self._process = subprocess.Popen(
            [python_of("authlib"), program], stdout=subprocess.PIPE, env=env
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"
        self.token_url = f"{self.url}/token"

    def revoke_all(self) -> None:
        """Revoke every grant, as a person does in the settings of an account."""
        _ = self._post("/revoke-all")

    def expire(self) -> None:
        """End the life of every access token, without a word to the client."""
        _ = self._post("/expire")

    def decide(self, code: str, *, approve: bool) -> None:
        """Enter a code, and approve or deny it."""
        _ = self._post(f"/decide/{code}/{'approve' if approve else 'deny'}")

    def approve_all(self) -> None:
        """Approve every code that was given."""
        _ = self._post("/approve-all")

    def delay(self, seconds: float) -> None:
        """Answer requests for tokens only after *seconds*."""
        _ = self._post(f"/delay/{seconds}")

    def count(self) -> int:
        """Return how many tokens were given."""
        return int(self._post("/count"))

    def _post(self, path: str) -> bytes:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST", path, b"")
        answer = connection.getresponse().read()
        connection.close()
        return answer

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        _ = self._process.wait(30)
        if self._process.stdout is not None:
            self._process.stdout.close()
