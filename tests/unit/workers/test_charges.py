"""What workers read, before they begin and when they are told to."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve

from pgproxy.config import Config, load
from pgproxy.workers.charges import Charges
from pgproxy.workers.share import Charge
from pgproxy.workers.worker import read_charge

TOML = """
[proxy]
auth = "trust"
pool_size = {size}
[targets.main]
server = "127.0.0.1:5433"
"""


def config(tmp_path: Path, size: int) -> Config:
    file = tmp_path / "pgproxy.toml"
    file.write_text(TOML.format(size=size))
    return load(file)


def test_what_is_refused_is_never_what_somebody_begins_with(tmp_path: Path) -> None:
    first = Charge(1, config(tmp_path, 1), 3, b"key", None, None)
    charges = Charges(first)
    begin_with, following = charges.files()
    refused = charges.propose(config(tmp_path, 2))
    assert read_charge(begin_with) == charges.in_force == first
    assert read_charge(following) == refused == evolve(first, number=2, config=config(tmp_path, 2))
    charges.repeat()
    assert read_charge(following) == first
    charges.agree(charges.propose(config(tmp_path, 3)))
    begin_with, _following = charges.files()
    assert read_charge(begin_with) == charges.in_force == evolve(first, number=3, config=config(tmp_path, 3))
    charges.close()
