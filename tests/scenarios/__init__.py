"""Scenarios: a real reactor, real sockets, real peers."""
