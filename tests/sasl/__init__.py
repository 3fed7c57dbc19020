"""Tests of `twisted_sendmail.sasl`."""
