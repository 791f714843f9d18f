"""Figures of all workers together."""

from __future__ import annotations

from pgproxy.workers.figures import AllFigures


def figures(clients: int, pins: int, now: int) -> dict[str, object]:
    return {
        "clients": clients,
        "servers": {"idle": 1},
        "pins": {"listen": {"pins": pins, "now": now, "seconds": 0.5}},
        "audit_found": 1,
    }


def test_they_are_added_up_and_outlive_a_worker() -> None:
    of_all = AllFigures()
    of_all.heard(1, figures(2, 3, 1))
    of_all.heard(2, figures(5, 1, 1))
    of_all.heard(2, figures(4, 2, 1))
    assert of_all.total() == {
        "clients": 6,
        "servers": {"idle": 2},
        "pins": {"listen": {"pins": 5, "now": 2, "seconds": 1.0}},
        "audit_found": 2,
    }
    of_all.ended(1)
    of_all.ended(3)
    total = of_all.total()
    assert (total["clients"], total["servers"]) == (4, {"idle": 1})
    assert total["pins"] == {"listen": {"pins": 5, "now": 1, "seconds": 1.0}}
    assert total["audit_found"] == 2
    # Of what is now there is nothing when nobody is here, and it is still there to be read.
    of_all.ended(2)
    total = of_all.total()
    assert (total["clients"], total["servers"]) == (0, {})
    assert total["pins"] == {"listen": {"pins": 5, "now": 0, "seconds": 1.0}}
