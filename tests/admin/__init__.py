"""Tests of `twisted_sendmail.admin`."""
