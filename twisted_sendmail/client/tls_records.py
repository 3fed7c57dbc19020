"""An OpenSSL connection that is not called when there is certainly nothing to read or to send.

Twisted's TLS protocol reads until OpenSSL has nothing more to read, and looks for something to send
after each read.  Both end with an exception of pyOpenSSL, which takes longer than decrypting a reply.
But most reads from the network are one whole record with data: after it there is nothing to read,
and reading it gives nothing to send.  In any other case OpenSSL is called as usual.

RFC 8446 section 5.1 (records; the same in TLS 1.2, RFC 5246 section 6.2.1).
"""

from __future__ import annotations

from typing import TypeAlias

from OpenSSL import SSL

_Octets: TypeAlias = bytes | bytearray | memoryview

# A record begins with its type, a version of two octets, and the number of octets that follow.
_HEADER = 5
_APPLICATION_DATA = 23


class RecordConnection(SSL.Connection):
    """A connection in memory, fed by ``bio_write``, that follows where records end."""

    # Octets that are still to come of the last record; None if that is not known any more.
    _missing: int | None = 0
    # OpenSSL has read all that came; or all but one record of data, which is whole.
    _all_read = _one_unread = False
    # Valid once, after a record of data was read.
    _nothing_to_send = False

    def bio_write(self, buf: _Octets) -> int:
        """Give OpenSSL octets from the network."""
        at, size = self._missing, len(buf)
        if at is not None:
            while at + _HEADER <= size:
                at += _HEADER + (buf[at + 3] << 8 | buf[at + 4])
            data = self._all_read and self._missing == 0 and buf[0] == _APPLICATION_DATA
            self._one_unread = data and at == size == _HEADER + (buf[3] << 8 | buf[4])
            # If a header is cut, OpenSSL is called as usual from there on.
            self._missing = at - size if at >= size else None
        self._all_read = self._nothing_to_send = False
        return super().bio_write(buf)

    def recv(self, bufsiz: int, flags: int | None = None) -> bytes:
        """Return what OpenSSL has decrypted."""
        if self._all_read:
            raise SSL.WantReadError
        one_unread, self._one_unread = self._one_unread, False
        try:
            data = super().recv(bufsiz, flags)
        except SSL.WantReadError:
            self._all_read = self._missing == 0
            raise
        if one_unread and flags is None and len(data) < bufsiz:
            self._all_read = self._nothing_to_send = True
        return data

    def send(self, buf: _Octets, flags: int = 0) -> int:
        """Let OpenSSL encrypt *buf*."""
        self._nothing_to_send = False
        return super().send(buf, flags)

    def bio_read(self, bufsiz: int) -> bytes:
        """Return octets for the network."""
        if self._nothing_to_send:
            self._nothing_to_send = False
            raise SSL.WantReadError
        return super().bio_read(bufsiz)

    def shutdown(self) -> bool:
        """Close the TLS session for writing."""
        self._all_read = self._nothing_to_send = False
        return super().shutdown()

    def bio_shutdown(self) -> None:
        """Note that nothing more comes from the network."""
        self._all_read = self._nothing_to_send = False
        super().bio_shutdown()
