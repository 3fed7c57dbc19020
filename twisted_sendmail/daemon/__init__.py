"""The relay as a process: configuration, listeners, signals, systemd, clock.

It assembles the server, the relay and the admin site, which meet only in the queue.
"""
