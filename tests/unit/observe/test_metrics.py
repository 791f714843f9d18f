"""Names from clients in Prometheus's text, read by its own parser: whatever they are, no two are one."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from pgproxy.config import Config
from pgproxy.figures.tally import Tally
from pgproxy.observe.metrics import page

# As they come from a startup message: bytes that are no UTF-8 are surrogates.
_BYTES = st.binary(min_size=1, max_size=8).map(lambda data: data.decode("utf-8", "surrogateescape"))
_TRICKY = st.text(st.sampled_from('\\udcf"{},=\n\r\u2028\udcff\udcdc '), min_size=1, max_size=12)


@settings(deadline=None)
@given(st.sets(_BYTES | _TRICKY, min_size=1, max_size=5))
@example({"\udcff", "\\udcff", "\\\udcff", "\\\\udcff", "\\"})
@example({'a"b', "a\nb", "a\\nb", "a\rb", "a\u2028b", "(others)"})
def test_names_stay_apart(names: set[str]) -> None:
    databases: dict[str, Any] = {
        name: Tally(transactions=number).figures() for number, name in enumerate(names)
    }
    pools = {name: {other: {"clients": 1} for other in names} for name in names}
    figures: dict[str, Any] = {"databases": databases, "pools": pools}
    found = page(figures, Config()).body.decode()
    seen = Counter(
        (sample.name, frozenset(sample.labels.items()))
        for family in text_string_to_metric_families(found)
        for sample in family.samples
    )
    assert max(seen.values()) == 1
    assert sum(one[0] == "pgproxy_transactions_total" for one in seen) == len(names)
    # Those that are what people write are as they were.
    shown = {dict(one[1])["database"] for one in seen if one[0] == "pgproxy_transactions_total"}
    assert {name for name in names if name.isalnum() and name.isascii()} <= shown
