"""What a client is told where pgproxy itself is at fault."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

from twisted.python.failure import Failure

from pgproxy.link.client import ClientConnection
from pgproxy.observe.client import ClientLog
from pgproxy.wire.messages import read_error_fields


def test_a_defect_at_login_is_said() -> None:
    written: list[bytes] = []
    logged: list[str] = []
    log: Any = SimpleNamespace(
        error=lambda event, **_: logged.append(event), info=lambda event, **_: logged.append(event)
    )
    front: Any = SimpleNamespace(accounts=SimpleNamespace(refused=Counter()))
    client = ClientConnection(front, ClientLog(log))
    transport: Any = SimpleNamespace(write=written.append, loseConnection=lambda: written.append(b""))
    client.transport = transport
    client._login_failed(Failure(RuntimeError("a defect")))
    fields = read_error_fields(written[0][5:])
    assert (fields["S"], fields["C"]) == ("FATAL", "XX000") and "a defect" in fields["M"]
    assert "RuntimeError" not in str(fields)
    assert logged == ["defect", "client_closed"] and written[1:] == [b""]
