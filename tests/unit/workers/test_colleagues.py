"""What a worker's console says when nobody can be asked any more."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone, ConnectionLost

from pgproxy.config import Config
from pgproxy.console.company import Refused
from pgproxy.workers.colleagues import Colleagues


class Orphan:
    """A seat without a supervisor."""

    def __init__(self, why: Exception) -> None:
        self._why = why

    def ask_everybody(self, _request: str) -> Deferred[str]:
        return fail(self._why)

    ask_head = ask_everybody


@pytest.mark.parametrize("why", [ConnectionDone(), ConnectionLost()], ids=lambda why: type(why).__name__)
def test_a_supervisor_that_is_gone_is_no_defect(why: Exception) -> None:
    seat: Any = Orphan(why)
    colleagues = Colleagues(seat, Config)
    for asked in (colleagues.everybody({"rows": "pools"}), colleagues.head({"posts": True})):
        with pytest.raises(Refused) as refused:
            asked.send(None)
        assert refused.value.why.sqlstate == "57P01" and refused.value.why.hint
