"""The tests of twisted_sendmail; their folders mirror the package."""
