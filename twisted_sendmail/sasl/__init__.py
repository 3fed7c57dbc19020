"""SASL (RFC 4422): the client's mechanisms, credentials, and SCRAM of both sides; pure."""

from twisted_sendmail.sasl.credentials import (
    Credentials,
    CredentialsUnavailable,
    ResolvedCredentials,
    Secret,
    Token,
    TokenSource,
)
from twisted_sendmail.sasl.mechanism import MAX_CHALLENGE, MAX_ROUNDS, Mechanism, one_too_many
from twisted_sendmail.sasl.negotiation import MECHANISMS, MechanismFactory, check_mechanisms, choose
from twisted_sendmail.sasl.oauth import BEARER_REFUSALS, parse_bearer
from twisted_sendmail.sasl.saslprep import saslprep
from twisted_sendmail.sasl.scram import ScramServer
from twisted_sendmail.sasl.scram_keys import (
    ITERATIONS,
    MAX_ITERATIONS,
    MIN_ITERATIONS,
    SALT_BYTES,
    ScramKeys,
)

__all__ = [
    "BEARER_REFUSALS",
    "ITERATIONS",
    "MAX_CHALLENGE",
    "MAX_ITERATIONS",
    "MAX_ROUNDS",
    "MECHANISMS",
    "MIN_ITERATIONS",
    "SALT_BYTES",
    "Credentials",
    "CredentialsUnavailable",
    "Mechanism",
    "MechanismFactory",
    "ResolvedCredentials",
    "ScramKeys",
    "ScramServer",
    "Secret",
    "Token",
    "TokenSource",
    "check_mechanisms",
    "choose",
    "one_too_many",
    "parse_bearer",
    "saslprep",
]
