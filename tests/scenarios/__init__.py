"""Scenarios with a real reactor, real sockets and real programs."""
