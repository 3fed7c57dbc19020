"""Tests of `twisted_sendmail.operation`."""
