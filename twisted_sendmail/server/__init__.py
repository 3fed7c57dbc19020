"""The server side: connections that receive mail."""

from twisted_sendmail.server.auth import (
    FAILED,
    Accounts,
    AuthRefused,
    AuthThrottle,
    Avatar,
    CertificateAccounts,
    IMailUser,
    PortalAccounts,
    TokenAccounts,
)
from twisted_sendmail.server.connection_info import ConnectionInfo
from twisted_sendmail.server.factory import ConnectionCounter, ConnectionLimits, SMTPServerFactory
from twisted_sendmail.server.networks import Networks, client_origin
from twisted_sendmail.server.password_file import (
    HashedAccounts,
    HashingPool,
    PasswordFile,
    password_entry,
)
from twisted_sendmail.server.protocol import SMTPServerProtocol
from twisted_sendmail.server.queue_receiver import QueueReceiver
from twisted_sendmail.server.receiver import (
    INSUFFICIENT_STORAGE,
    Receiver,
    ReceiverReply,
    Verdict,
)
from twisted_sendmail.server.timeouts import ServerTimeouts
from twisted_sendmail.server.tls import ServerTLS
from twisted_sendmail.server.user_rates import UserRates

__all__ = [
    "FAILED",
    "INSUFFICIENT_STORAGE",
    "Accounts",
    "AuthRefused",
    "AuthThrottle",
    "Avatar",
    "CertificateAccounts",
    "ConnectionCounter",
    "ConnectionInfo",
    "ConnectionLimits",
    "HashedAccounts",
    "HashingPool",
    "IMailUser",
    "Networks",
    "PasswordFile",
    "PortalAccounts",
    "QueueReceiver",
    "Receiver",
    "ReceiverReply",
    "SMTPServerFactory",
    "SMTPServerProtocol",
    "ServerTLS",
    "ServerTimeouts",
    "TokenAccounts",
    "UserRates",
    "Verdict",
    "client_origin",
    "password_entry",
]
