"""Tests of `twisted_sendmail.ingress`."""
