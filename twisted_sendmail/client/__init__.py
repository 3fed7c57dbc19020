"""One connection to one server: the only package that talks to the network."""
