"""Tests of the durable queue."""
