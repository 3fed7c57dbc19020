"""Tests of `twisted_sendmail.server`."""
