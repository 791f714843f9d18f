"""What of a configuration is each worker's, and how many workers there are."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from pgproxy.config import Config, ConfigError, load
from pgproxy.pool.budget import NO_LIMIT
from pgproxy.workers.share import SHORTEST_WAIT, number_of_workers, of_worker

TOML = """
[proxy]
workers = {workers}
auth = "trust"
max_logins = 10
max_connection_rate = 0
max_client_connections = 100
connection_borrow_timeout = 0
min_pool_size = 3
[targets.main]
server = "127.0.0.1:5433"
[databases.app]
max_server_connections = 5
min_server_connections = 2
min_pool_size = 1
[users.app]
max_server_connections = 7
pool_size = 4
"""


def config(tmp_path: Path, workers: str) -> Config:
    file = tmp_path / "pgproxy.toml"
    file.write_text(TOML.format(workers=workers))
    return load(file)


def test_a_workers_part(tmp_path: Path) -> None:
    whole = config(tmp_path, "3")
    part = of_worker(whole, 3)
    assert (part.proxy.max_logins, part.proxy.max_connection_rate) == (4, 0)
    # A count over all workers, a limit that permits are within.
    assert (part.proxy.max_client_connections, part.pool_size("app", "app")) == (100, 4)
    # The supervisor opens for it, a worker keeps the pool that it is for.
    assert (part.min_pool_size("app", "app"), part.min_pool_size("other", "other")) == (1, 3)
    assert part.proxy.connection_borrow_timeout == SHORTEST_WAIT
    assert part.databases["app"].max_server_connections == 0
    assert part.databases["app"].min_server_connections == 0
    assert part.users["app"].max_server_connections == 0
    assert part.targets["main"].max_connecting_servers < NO_LIMIT


def test_how_many(tmp_path: Path) -> None:
    assert number_of_workers(config(tmp_path, "3")) == 3
    assert number_of_workers(config(tmp_path, '"auto"')) == len(os.sched_getaffinity(0))
    for wrong in ("0", "65", "true", '"many"'):
        with pytest.raises(ConfigError, match=r"proxy.workers: .* from 1 to 64, or \"auto\""):
            config(tmp_path, wrong)


def test_a_configuration_is_handed_on_whole(tmp_path: Path) -> None:
    whole = config(tmp_path, "3")
    assert pickle.loads(pickle.dumps(whole)) == whole
