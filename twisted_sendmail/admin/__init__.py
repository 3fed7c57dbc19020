"""The administration endpoint of a relay: health, metrics, and the page of the queue.

It looks at the spool and listens to the relay; nothing of mail depends on it.
"""
