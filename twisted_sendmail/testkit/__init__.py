"""What ``twisted_sendmail.testing`` is made of: servers, authorities, faults and stubs for tests."""
