"""SASL (RFC 4422): the client's mechanisms, credentials, and SCRAM of both sides; pure."""

from twisted_sendmail.sasl.credentials import (
    ChannelBinding,
    Credentials,
    CredentialsUnavailable,
    ResolvedCredentials,
    Secret,
    Token,
    TokenSource,
)
from twisted_sendmail.sasl.mechanism import MAX_CHALLENGE, MAX_ROUNDS, Mechanism, one_too_many
from twisted_sendmail.sasl.negotiation import (
    MECHANISMS,
    MechanismFactory,
    certificate_credentials,
    certificate_only,
    check_mechanisms,
    choose,
)
from twisted_sendmail.sasl.oauth import BEARER_REFUSALS, parse_bearer
from twisted_sendmail.sasl.saslprep import saslprep
from twisted_sendmail.sasl.scram import PLUS, BindingRefused, ScramServer, hash_of
from twisted_sendmail.sasl.scram_keys import (
    ITERATIONS,
    MAX_ITERATIONS,
    MIN_ITERATIONS,
    MIN_ITERATIONS_SHA512,
    SALT_BYTES,
    SCRAM_HASHES,
    ScramKeys,
    min_iterations,
)

__all__ = [
    "BEARER_REFUSALS",
    "ITERATIONS",
    "MAX_CHALLENGE",
    "MAX_ITERATIONS",
    "MAX_ROUNDS",
    "MECHANISMS",
    "MIN_ITERATIONS",
    "MIN_ITERATIONS_SHA512",
    "PLUS",
    "SALT_BYTES",
    "SCRAM_HASHES",
    "BindingRefused",
    "ChannelBinding",
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
    "certificate_credentials",
    "certificate_only",
    "check_mechanisms",
    "choose",
    "hash_of",
    "min_iterations",
    "one_too_many",
    "parse_bearer",
    "saslprep",
]
