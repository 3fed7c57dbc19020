"""Tests of `twisted_sendmail.client`."""
