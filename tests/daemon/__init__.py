"""Tests of `twisted_sendmail.daemon`."""
