"""Tests of `twisted_sendmail.cli`."""
