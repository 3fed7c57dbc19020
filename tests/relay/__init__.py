"""Tests of `twisted_sendmail.mailer`."""
