"""What an operator runs: configuration, listening, signals, health, metrics and the queue page.

Here the server of ``ingress`` and the ``relay`` are put together; they know only the spool.
"""
