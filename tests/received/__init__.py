"""Tests of twisted_sendmail.received."""
