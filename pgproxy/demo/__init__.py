"""A throw-away PostgreSQL and the `make run` demonstration."""
