"""No secret gets out: tests of what is public, on the wire."""
