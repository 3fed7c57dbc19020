"""Proofs of identity (RFC 4422), one mechanism a file: pure."""

from twisted_sendmail.sasl.credentials import (
    Credentials,
    CredentialsUnavailable,
    ResolvedCredentials,
    Secret,
)
from twisted_sendmail.sasl.mechanism import MAX_CHALLENGE, MAX_ROUNDS, Mechanism
from twisted_sendmail.sasl.negotiation import MECHANISMS, MechanismFactory, check_mechanisms, choose
from twisted_sendmail.sasl.saslprep import saslprep

__all__ = [
    "MAX_CHALLENGE",
    "MAX_ROUNDS",
    "MECHANISMS",
    "Credentials",
    "CredentialsUnavailable",
    "Mechanism",
    "MechanismFactory",
    "ResolvedCredentials",
    "Secret",
    "check_mechanisms",
    "choose",
    "saslprep",
]
