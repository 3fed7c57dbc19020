"""The server side: a connection that takes mail in."""
