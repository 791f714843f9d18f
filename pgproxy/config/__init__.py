"""
The configuration: TOML, checked as a whole, as frozen values.

- `kinds`: what an option takes, and the words for it. `model`: the options, with their defaults and meanings.
- `reading`: a file or a command line into a `Config`. `checks`: what two options, or an option and a file,
  have to do with each other. `problems`: how what is wrong is said.
- `reference`: docs/configuration.md, which `python -m pgproxy.config` prints.
"""

from pgproxy.config.kinds import Address
from pgproxy.config.model import (
    AuthMethod,
    AuthQuery,
    Config,
    Database,
    Discovery,
    Http,
    PoolMode,
    Proxy,
    ProxyTls,
    Target,
    User,
)
from pgproxy.config.problems import ConfigError, Problem
from pgproxy.config.reading import from_options, load

__all__ = [
    "load",
    "from_options",
    "Config",
    "Proxy",
    "ProxyTls",
    "AuthQuery",
    "Target",
    "Discovery",
    "Database",
    "User",
    "Http",
    "Address",
    "PoolMode",
    "AuthMethod",
    "ConfigError",
    "Problem",
]
