"""``twisted-sendmail login``: log in at an OAuth provider, and store the refresh token."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError

from twisted_sendmail.cli.option_table import add_options_of
from twisted_sendmail.cli.options import (
    SERVER_VARIABLE,
    account_of,
    add_account_option,
    add_oauth_options,
    add_world_readable_option,
    login_of,
)
from twisted_sendmail.cli.output import print_note, print_result
from twisted_sendmail.cli.react import react
from twisted_sendmail.exit_status import CommandError, ExitStatus
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from twisted_sendmail.oauth import OAuthSettings
    from twisted_sendmail.oauth_login import LoginRequest


def add_options(parser: ArgumentParser) -> None:
    """Add the options of the subcommand to *parser*."""
    parser.usage = "%(prog)s [OPTIONS] [URL]"
    parser.description = (
        "Log in with OAuth: print an address and a code to enter there, on any machine, wait, and store "
        "the refresh token for `send`, `check` and the relay. If the provider has no codes for mail, print an "
        "address to open in a browser of this machine."
    )
    parser.add_argument(
        "server",
        metavar="URL",
        nargs="?",
        help="the server, as for `send`, with the settings of OAuth in it or as options; else the variable "
        f"{SERVER_VARIABLE}, else the default account",
    )
    add_account_option(parser)
    add_options_of(parser, "--user NAME  log in as NAME; or user@ in the URL")
    add_oauth_options(parser)
    add_world_readable_option(parser)
    login = parser.add_argument_group("the login")
    add_options_of(
        login,
        """
        --oauth-device-url URL  the device authorization endpoint, instead of the provider's
        --oauth-authorization-url URL  the authorization endpoint, instead of the provider's
        --browser               use a browser, though the provider has codes
        --port PORT             the port that the browser returns to, at http://localhost:PORT/; any
        """,
        port={"type": _port, "default": 0},
    )


def _port(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if not 0 < number < 65536:
        raise ArgumentTypeError("it is a number from 1 to 65535")
    return number


def execute(args: Namespace) -> int:
    """Log in; the exit status."""
    settings, user, device_url, authorization_url = login_of(args, account_of(args))
    urls = {"device_url": device_url, "authorization_url": authorization_url}
    return react(lambda reactor: _log_in(args, reactor, settings, user, urls))


async def _log_in(
    args: Namespace, reactor: Any, settings: OAuthSettings, user: str, urls: dict[str, str | None]
) -> int:
    from twisted_sendmail.oauth_login import login_tokens

    try:
        tokens = login_tokens(
            reactor,
            settings,
            _show,
            browser=args.browser,
            user=user,
            port=args.port,
            **urls,
        )
        _ = await tokens.log_in()
    except ImportError as e:
        raise CommandError(str(e), ExitStatus.CONFIG) from None
    except CancelledError:
        raise CommandError("interrupted; no token was stored", ExitStatus.TEMPFAIL) from None
    file = settings.refresh_token_file
    where = "was given to the command" if file is None else f"is in {printable(str(file), 300)}"
    print_result(f"logged in; the refresh token {where}")
    return ExitStatus.OK


def _show(request: LoginRequest) -> None:
    from twisted_sendmail.oauth_login import MAX_ADDRESS, MAX_USER_CODE

    minutes = max(round(request.expires_in / 60), 1)
    # An address that is cut cannot be opened.
    address = printable(request.url, MAX_ADDRESS)
    if request.code:
        print_note(f"Open this address in a browser, on any machine: {address}")
        print_note(
            f"and enter this code within {minutes} min: {printable(request.code, MAX_USER_CODE)}"
        )
    else:
        print_note(f"Open this address in a browser of this machine within {minutes} min:")
        print_note(address)
