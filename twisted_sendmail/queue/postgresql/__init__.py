"""The queue in a PostgreSQL database, which several relays share."""
