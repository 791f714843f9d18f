"""
What workers are told before they begin, and at a reload: files in memory, which all of them have inherited.

The law: who starts reads the charge in force, in a file that is never written again. Who is there reads the
next one, from a file that is written before it is told to.
"""

from __future__ import annotations

import os
import pickle

from attrs import evolve

from pgproxy.config import Config
from pgproxy.workers.share import Charge


class Charges:
    """The charge in force, and the next one while it is not yet agreed upon."""

    def __init__(self, first: Charge) -> None:
        self.in_force = first
        self._number = first.number
        """How many there have been, those that were refused included."""
        self._begin_with = _new_file(first)
        self._next = os.memfd_create("pgproxy")

    def files(self) -> tuple[int, int]:
        """Give the descriptors of the charge in force and of the next."""
        return self._begin_with, self._next

    def propose(self, config: Config) -> Charge:
        """Lay ready what is to be the next."""
        self._number += 1
        charge = evolve(self.in_force, number=self._number, config=config)
        _write(self._next, charge)
        return charge

    def agree(self, charge: Charge) -> None:
        """Put it in force."""
        os.close(self._begin_with)
        self._begin_with = _new_file(charge)
        self.in_force = charge

    def repeat(self) -> None:
        """Lay ready the one in force, for those that are there and have another."""
        _write(self._next, self.in_force)

    def close(self) -> None:
        """Close the files."""
        os.close(self._begin_with)
        os.close(self._next)


def _new_file(charge: Charge) -> int:
    descriptor = os.memfd_create("pgproxy")
    _write(descriptor, charge)
    return descriptor


def _write(descriptor: int, charge: Charge) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, pickle.dumps(charge), 0)
