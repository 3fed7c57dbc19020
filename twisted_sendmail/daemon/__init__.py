"""What an operator runs: configuration, listening, signals, systemd, the clock.

Here the server of ``ingress``, the ``relay`` and the ``admin`` endpoint are put together; the
first two know only the spool.
"""
