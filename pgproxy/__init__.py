"""
A pooling proxy in front of PostgreSQL.

The rooms, from the wire inwards (docs/architecture.md has the picture):

- `wire`: bytes and their meaning, `auth`: who are you, `session`: what a client has left in a server,
  `pool`: who has which server. None of these knows a socket, a clock or Twisted: they decide.
- `link`: the Twisted protocols and transports that perform what the rooms above decide.
- `config`, `service`, `tap`: what the operator sees.
- `demo`: a throw-away PostgreSQL for `make run`, the tests and the benchmark.
"""

__version__ = "0.1.0"
