"""The admin endpoint of a relay: health, metrics and the queue page."""
