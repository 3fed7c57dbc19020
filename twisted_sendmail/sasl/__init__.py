"""Proofs of identity (RFC 4422), one mechanism a file: pure."""
