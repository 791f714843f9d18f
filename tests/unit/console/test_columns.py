"""The tables that PgBouncer has, too, begin with its columns: names, order and types."""

from __future__ import annotations

import pytest

from pgproxy.console.columns import SHOWN
from pgproxy.console.tables import Kind

ENDPOINTS = (
    "ssssssisissiiississii",
    "type user database replication state addr port local_addr local_port connect_time request_time wait "
    "wait_us close_needed ptr link remote_pid tls application_name prepared_statements id",
)
COUNTED = (
    "server_assignment_count xact_count query_count {received} {sent} xact_time query_time wait_time "
    "{own}client_parse_count {own}server_parse_count {own}bind_count {own}client_login_count"
)
PLAIN = {"received": "bytes_received", "sent": "bytes_sent"}
PGBOUNCERS = {
    "pools": (
        "ssiiiiiiiiiiiiiss",
        "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active "
        "sv_active_cancel sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us pool_mode "
        "load_balance_hosts",
    ),
    "clients": ENDPOINTS,
    "servers": ENDPOINTS,
    "stats": (
        "s" + "N" * 24,
        " ".join(
            [
                "database",
                *(f"total_{one}" for one in COUNTED.format(received="received", sent="sent", own="").split()),
                *(f"avg_{one}" for one in COUNTED.format(received="recv", sent="sent", own="").split()),
            ]
        ),
    ),
    "stats_totals": ("s" + "N" * 12, "database " + COUNTED.format(**PLAIN, own="")),
    "stats_averages": ("s" + "N" * 12, "database " + COUNTED.format(**PLAIN, own="avg_")),
    "databases": (
        "ssissiiiissiiiiii",
        "name host port database force_user pool_size min_pool_size reserve_pool_size server_lifetime "
        "pool_mode load_balance_hosts max_connections current_connections max_client_connections "
        "current_client_connections paused disabled",
    ),
    "users": (
        "ssssiiii",
        "name pool_size reserve_pool_size pool_mode max_user_connections current_connections "
        "max_user_client_connections current_client_connections",
    ),
    "lists": ("si", "list items"),
    "config": ("ssss", "key value default changeable"),
    "mem": ("siiii", "name size used free memtotal"),
    "version": ("s", "version"),
    "state": ("ss", "key value"),
}
"""
As PgBouncer's own source has them (admin.c and stats.c, 2026-07, after 1.25.2): s text, i int4, N numeric.

Its columns of times (T) are texts.
"""
KINDS = {Kind.TEXT: "s", Kind.INT4: "i", Kind.NUMERIC: "N"}


@pytest.mark.parametrize("table", PGBOUNCERS)
def test_tables_begin_with_pgbouncers_columns(table: str) -> None:
    types, names = PGBOUNCERS[table]
    ours = SHOWN[table][: len(types)]
    assert [column.name for column in ours] == names.split()
    # Ours has the worker's number in it, too, which takes more than int4.
    wide = [column.name for column in ours if column.kind is Kind.INT8]
    assert wide == (["id"] if "id" in names.split() else [])
    assert "".join(KINDS.get(column.kind, "i") for column in ours) == types
