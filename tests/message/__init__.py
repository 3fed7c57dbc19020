"""Tests of `twisted_sendmail.message`."""
