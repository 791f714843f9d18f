"""Clusters for tests, and those who tell of them: a name server, Patroni's API, the RDS API."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest

from pgproxy.demo.binaries import Binaries
from pgproxy.demo.conf import Setting
from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import Account
from tests.cluster import Cluster, template
from tests.fix_postgres import PASSWORDS
from tests.patroni import Patroni
from tests.rds import Rds
from tests.zone import Zone


class ClusterFactory(Protocol):
    """Makes a cluster: with a cable before each host, or settings of its own."""

    def __call__(self, *, with_cables: bool = False, **settings: Setting) -> Cluster: ...


@pytest.fixture(scope="session")
def cluster_template(binaries: Binaries, account: Account | None) -> Iterator[Postgres]:
    """What writers begin with: the users of `fix_postgres`, `app` with a database, and `toil` with one."""
    with template(binaries, account, PASSWORDS) as server:
        yield server


@pytest.fixture
def cluster_factory(cluster_template: Postgres, account: Account | None) -> Iterator[ClusterFactory]:
    """Clusters of a test's own, gone after it."""
    with ExitStack() as clusters:

        def start(*, with_cables: bool = False, **settings: Setting) -> Cluster:
            cluster = Cluster(cluster_template, account, settings=settings, with_cables=with_cables)
            return clusters.enter_context(cluster)

        yield start


@pytest.fixture(scope="module")
def module_cluster(cluster_template: Postgres, account: Account | None) -> Iterator[Cluster]:
    """The cluster of a module."""
    with Cluster(cluster_template, account) as cluster:
        yield cluster


@pytest.fixture
def cluster(module_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster of a module, whole again after each test: `settle`."""
    yield module_cluster
    module_cluster.settle()


@pytest.fixture(scope="module")
def module_cabled_cluster(cluster_template: Postgres, account: Account | None) -> Iterator[Cluster]:
    """The cluster of a module that has a cable before each host."""
    with Cluster(cluster_template, account, with_cables=True) as cluster:
        yield cluster


@pytest.fixture
def cabled_cluster(module_cabled_cluster: Cluster) -> Iterator[Cluster]:
    """The same, whole again after each test."""
    yield module_cabled_cluster
    module_cabled_cluster.settle()


@pytest.fixture
def zone() -> Iterator[Zone]:
    """A name server, empty at first."""
    with Zone() as zone:
        yield zone


@pytest.fixture
def patroni() -> Iterator[Patroni]:
    """Patroni's REST API, of a cluster without members at first."""
    with Patroni() as patroni:
        yield patroni


@pytest.fixture(scope="session")
def rds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rds]:
    """The RDS API, shared by the tests of a worker, as it starts slowly: each makes a cluster of its own."""
    with Rds(tmp_path_factory.mktemp("rds")) as rds:
        yield rds
