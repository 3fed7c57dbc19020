"""Tests of `twisted_sendmail.drop`."""
