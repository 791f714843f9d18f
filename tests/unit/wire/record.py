"""
Records what real clients and a real server say after login: `python -m tests.unit.wire.record`.

The recordings are kept beside this file; they were made with PostgreSQL 15.18, psycopg 3.3.9 (libpq 18),
asyncpg 0.32.0 and pg8000 1.31.6.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 - asyncpg runs on it
import json
import socket
import threading
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pg8000.dbapi
import psycopg

from pgproxy.demo.binaries import find_binaries
from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import server_account

PLACE = Path(__file__).with_name("recorded")


class Tap:
    """A relay for one connection that keeps both streams."""

    def __init__(self, target: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.streams: dict[str, bytes] = {"client": b"", "server": b""}
        self._target = target
        self._thread = threading.Thread(target=self._relay)
        self._thread.start()

    def _relay(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._target))
        back = threading.Thread(target=self._copy, args=("server", server, client))
        back.start()
        self._copy("client", client, server)
        back.join()

    def _copy(self, who: str, source: socket.socket, sink: socket.socket) -> None:
        while data := source.recv(65536):
            self.streams[who] += data
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)

    def recorded(self) -> dict[str, str]:
        """Give both streams without what came before and during login."""
        self._thread.join()
        client, server = self.streams["client"], self.streams["server"]
        client = client[int.from_bytes(client[:4], "big") :]
        server = server[server.index(b"Z\0\0\0\5I") + 6 :]
        return {who: b64encode(stream).decode() for who, stream in (("client", client), ("server", server))}


def with_psycopg(port: int) -> None:
    with psycopg.connect(
        f"host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=disable gssencmode=disable"
    ) as connection:
        connection.execute("create temp table t (a int, b text)")
        with connection.cursor().copy("copy t from stdin") as copy:
            for number in range(20):
                copy.write_row((number, "x" * number))
        with connection.pipeline():
            for number in range(5):
                connection.execute("select a, b from t where a > %s", (number,))
        with connection.cursor().copy("copy t to stdout") as rows:
            list(rows)
        try:
            connection.execute("select nothing from nowhere")
        except psycopg.Error:
            connection.rollback()
        connection.execute("do $$ begin raise notice 'a notice'; end $$")


def with_asyncpg(port: int) -> None:
    async def main() -> None:
        connection = await asyncpg.connect(f"postgres://postgres@127.0.0.1:{port}/postgres", ssl=False)
        for number in range(3):
            await connection.fetch("select generate_series(1, $1::int)", number)
        await connection.execute("select 1; select 2")
        await connection.reset()
        await connection.close()

    asyncio.run(main())


def with_pg8000(port: int) -> None:
    connection = pg8000.dbapi.connect(
        "postgres", host="127.0.0.1", port=port, database="postgres", ssl_context=False
    )
    cursor = connection.cursor()
    cursor.execute("set timezone = 'UTC'")
    cursor.execute("select %s::text, now()", ("value",))
    cursor.fetchall()
    connection.close()


def main() -> None:
    """Record all conversations."""
    PLACE.mkdir(exist_ok=True)
    account = server_account()
    conversations: dict[str, Callable[[int], None]] = {
        "psycopg": with_psycopg,
        "asyncpg": with_asyncpg,
        "pg8000": with_pg8000,
    }
    with Postgres(find_binaries(account), account, hba=["host all all 127.0.0.1/32 trust"]) as server:
        for name, talk in conversations.items():
            tap = Tap(server.port)
            talk(tap.port)
            (PLACE / f"{name}.json").write_text(json.dumps(tap.recorded(), indent=0) + "\n")


if __name__ == "__main__":
    main()
