"""
The configuration: TOML, checked as a whole, as frozen values.

- `kinds`: what an option takes, and the words for it; `ranges`: those that several tables share.
- The options with their defaults and meanings, by table: `proxy` and `access`, `target` and `discovery`,
  `narrower` (a database's, a user's), `http`, `aws`. `model`: all tables as one `Config`.
- `reading`: a file or a command line into a `Config`. `checks`: what two options, or an option and a file,
  have to do with each other. `problems`: how what is wrong is said.
- `reference`: docs/configuration.md, which `python -m pgproxy.config` prints.
"""

from pgproxy.config.access import AuthQuery, ProxyTls
from pgproxy.config.discovery import Discovery
from pgproxy.config.http import Http
from pgproxy.config.kinds import Address
from pgproxy.config.model import Config
from pgproxy.config.narrower import Database, User
from pgproxy.config.problems import ConfigError, Problem
from pgproxy.config.proxy import AuthMethod, Proxy
from pgproxy.config.ranges import PoolMode
from pgproxy.config.reading import from_options, load
from pgproxy.config.target import Target

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
