"""Recipient rows, as the record of an attempt has them: those of the public conformance suite."""

from __future__ import annotations

from twisted_sendmail.testing.queue_conformance.messages import recipient_row

__all__ = ["recipient_row"]
