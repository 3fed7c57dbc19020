"""The reasons for which OpenSSL rejects a certificate, in words.

The numbers are those of ``X509_V_ERR_*`` in OpenSSL's ``x509_vfy.h``, up to OpenSSL 4.0; see
openssl-verification-options(1).  Each text completes the sentence "the certificate: …".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datetime as dt

#: There is no path from the certificate to a CA that is trusted.
UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21, 27})
WRONG_SIGNATURE, NOT_YET_VALID, EXPIRED, INVALID_PURPOSE = 7, 9, 10, 26

_WORDS = {
    1: "OpenSSL gives no reason",
    2: "the certificate of its issuer is not known",
    3: "the revocation list of its CA is missing",
    4: "its signature cannot be decrypted",
    5: "the signature of its CA's revocation list cannot be decrypted",
    6: "the public key of its issuer cannot be read",
    WRONG_SIGNATURE: "its signature is wrong: another CA of that name has issued it",
    8: "the signature of its CA's revocation list is wrong",
    NOT_YET_VALID: "it is not valid yet",
    EXPIRED: "it has expired",
    11: "its CA's revocation list is not valid yet",
    12: "its CA's revocation list has expired",
    13: "the date from which it is valid cannot be read",
    14: "the date until which it is valid cannot be read",
    15: "the date of its CA's revocation list cannot be read",
    16: "the date of its CA's next revocation list cannot be read",
    17: "there was no memory left to verify it",
    18: "it is self-signed",
    19: "its chain ends in a self-signed certificate that is not trusted",
    20: "its issuer is not known",
    21: "its issuer is not known",
    22: "its chain is too long",
    23: "it is revoked",
    24: "the certificate of its issuer has no public key",
    25: "it is further below its CA than the CA allows",
    INVALID_PURPOSE: "it is not meant for servers",
    27: "its CA is not trusted for servers",
    28: "its CA is marked as rejected",
    29: "its issuer has another name than the certificate above it",
    30: "the key of its issuer is not that of the certificate above it",
    31: "the serial number of its issuer is not that of the certificate above it",
    32: "its issuer's key may not sign certificates",
    33: "the issuer of its CA's revocation list is not known",
    34: "it has a critical extension that OpenSSL does not support",
    35: "its CA's key may not sign revocation lists",
    36: "its CA's revocation list has a critical extension that OpenSSL does not support",
    37: "it is marked as a CA, and is none",
    38: "too many proxy certificates are above it",
    39: "its key may not be used for signatures",
    40: "it is a proxy certificate, which is not allowed",
    41: "an extension is invalid or contradicts another one",
    42: "its policy extension is invalid or contradicts another one",
    43: "it has none of the policies that are required",
    44: "its CA's revocation list is for other certificates",
    45: "an extension has a feature that OpenSSL does not support",
    46: "its address blocks are not within those of its issuer (RFC 3779)",
    47: "a name in it is outside of those that its CA may issue for",
    48: "a name in it is one that its CA may not issue for",
    49: "its CA limits names by minimum and maximum, which OpenSSL does not support",
    50: "the application rejected it",
    51: "its CA limits names of a kind that OpenSSL does not support",
    52: "its CA limits names by a syntax that is invalid or not supported",
    53: "a name in it has a syntax that is invalid or not supported",
    54: "its CA's revocation list cannot be verified",
    55: "its chain is a loop",
    56: "its version is not one of Suite B",
    57: "its public key algorithm is not one of Suite B",
    58: "its curve is not one of Suite B",
    59: "its signature algorithm is not one of Suite B",
    60: "its curve is too weak for the level of Suite B",
    61: "P-256 signs P-384 in its chain, which Suite B does not allow",
    62: "it is for another host name",
    63: "it is for another email address",
    64: "it is for another IP address",
    65: "no TLSA record matches it",
    66: "its key is too weak",
    67: "the key of its CA is too weak",
    68: "the digest of its CA's signature is too weak",
    69: "OpenSSL was called in a wrong way",
    70: "the search for its issuer failed",
    71: "it is in no log of Certificate Transparency",
    72: "the name of a proxy certificate does not follow from its issuer's",
    73: "it has to be verified by OCSP",
    74: "OCSP could not verify it",
    75: "the OCSP responder does not know it",
    76: "its signature algorithm is not supported",
    77: "its signature algorithm does not fit the key of its issuer",
    78: "it names two different signature algorithms",
    79: "its issuer is no CA",
    80: "it limits the length of chains, and is no CA",
    81: "it limits the length of chains, and its key may not sign certificates",
    82: "its key may sign certificates, and it is no CA",
    83: "the name of its issuer is empty",
    84: "its subject is empty",
    85: "it does not identify the key of its issuer",
    86: "it does not identify its key",
    87: "its list of names (subjectAltName) is empty",
    88: "its subject is empty, and its list of names (subjectAltName) is not critical",
    89: "the basic constraints of its CA are not critical",
    90: "the identifier of its issuer's key is critical",
    91: "the identifier of its key is critical",
    92: "the certificate of its CA has no key usage",
    93: "it has extensions, and not version 3",
    94: "its key has explicit parameters of an elliptic curve",
    95: "it is a raw public key that is not trusted",
    96: "the OCSP response about it is invalid",
    97: "the signature of the OCSP response about it is wrong",
    98: "the OCSP response about it is not valid yet",
    99: "the OCSP response about it has expired",
    100: "there is no OCSP response about it",
    102: "the identifier of its issuer's key is empty",
    103: "the identifier of its issuer's key has only one of issuer and serial number",
}


def words_for(error: int, not_before: dt.datetime, not_after: dt.datetime) -> str:
    """Return the reason for which OpenSSL rejects a certificate.

    :param error: OpenSSL's number.
    :param not_before: when the certificate begins to be valid; *not_after*: when it ends.
    """
    words = _WORDS.get(error, f"OpenSSL rejects it with the verify error {error}")
    if error == NOT_YET_VALID:
        return f"{words}: it begins on {not_before:%Y-%m-%d %H:%M} UTC; check the clock of this machine"
    if error == EXPIRED:
        return f"{words}, on {not_after:%Y-%m-%d %H:%M} UTC"
    return words
