"""Tests of `twisted_sendmail.smtp`."""
