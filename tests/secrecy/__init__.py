"""Tests that no secret is shown, by public names and on the wire."""
