"""The letter itself: what can be sent, what submission adds to it, what is read from its header: pure."""
