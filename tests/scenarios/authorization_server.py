"""An authorization server of Authlib, in a process of its own on the loopback interface.

Each refresh token is used once; the first is ``granted``.  ``POST /revoke-all`` revokes all of them, as a
person does in the settings of an account.
"""

from __future__ import annotations

import subprocess
from http.client import HTTPConnection
from typing import TYPE_CHECKING

from tests.scenarios.peers import python_of

if TYPE_CHECKING:
    from pathlib import Path

_PROGRAM = '''
import os
import sys

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin, TokenMixin, grants
from flask import Flask
from werkzeug.serving import make_server

SECRET = "kein-Wort-davon-42"


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
        return method == "client_secret_post"

    def check_response_type(self, response_type):
        return False

    def check_grant_type(self, grant_type):
        return grant_type in {"refresh_token", "client_credentials"}


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

    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_post"]
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

    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_post"]


def save_token(token, request):
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


@app.post("/token")
def token():
    return server.create_token_response()


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
    """The running server; :meth:`stop` ends it."""

    def __init__(self, folder: Path) -> None:
        program = folder / "authorization_server.py"
        program.write_text(_PROGRAM)
        self._process = subprocess.Popen([python_of("authlib"), program], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline())
        self.token_url = f"http://127.0.0.1:{self._port}/token"

    def revoke_all(self) -> None:
        """Revoke every grant."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
        connection.request("POST", "/revoke-all", b"")
        _ = connection.getresponse().read()
        connection.close()

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        _ = self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()
