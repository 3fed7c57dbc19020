"""The server side: a connection that takes mail in."""

from twisted_sendmail.server.accounts import HashedAccounts
from twisted_sendmail.server.auth_throttle import AuthThrottle
from twisted_sendmail.server.authentication import FAILED, Accounts, AuthRefused, Avatar
from twisted_sendmail.server.factory import ConnectionLimits, SMTPServerFactory
from twisted_sendmail.server.hashing import HashingPool
from twisted_sendmail.server.networks import Networks
from twisted_sendmail.server.password_file import PasswordFile, entry
from twisted_sendmail.server.protocol import SMTPServerProtocol
from twisted_sendmail.server.queue_receiver import QueueReceiver
from twisted_sendmail.server.receiver import Answer, ConnectionInfo, Receiver, Verdict
from twisted_sendmail.server.scram import ITERATIONS, MAX_ITERATIONS, MIN_ITERATIONS, ScramKeys
from twisted_sendmail.server.timeouts import ServerTimeouts
from twisted_sendmail.server.tls import ServerTLS

__all__ = [
    "FAILED",
    "ITERATIONS",
    "MAX_ITERATIONS",
    "MIN_ITERATIONS",
    "Accounts",
    "Answer",
    "AuthRefused",
    "AuthThrottle",
    "Avatar",
    "ConnectionInfo",
    "ConnectionLimits",
    "HashedAccounts",
    "HashingPool",
    "Networks",
    "PasswordFile",
    "QueueReceiver",
    "Receiver",
    "SMTPServerFactory",
    "SMTPServerProtocol",
    "ScramKeys",
    "ServerTLS",
    "ServerTimeouts",
    "Verdict",
    "entry",
]
