"""A picture as lines of text, by rich: the only file that imports it."""

from __future__ import annotations

from io import StringIO

from attrs import frozen
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from pgproxy.top.layout import bytes_, cells, number, shares, shown, time
from pgproxy.top.picture import Clients, Host, Picture, Pins, Pool, Process, Rates, Servers, Statement

_HEAD = 4
_BAR = 14
_NARROWEST = 20
_BLOCKS = "\N{FULL BLOCK}\N{MEDIUM SHADE}\N{MIDDLE DOT}"
_PLAIN = "#=."


@frozen
class Paper:
    """What is drawn on."""

    width: int
    height: int | None
    """Lines; None: as many as it takes."""
    encoding: str
    colours: bool
    """Whether the terminal has any; without it there is no escape in what is drawn."""
    plain: bool
    """Whether colours are not wanted (NO_COLOR); what is bold is so still."""


@frozen
class Caption:
    """What stands above a picture beside its figures."""

    where: str
    clock: str
    """When it was drawn, and how often that is."""
    alarm: str = ""
    """Why the figures are old ones, if they are."""


def draw(picture: Picture | None, caption: Caption, paper: Paper) -> str:
    """Draw it: lines with a line feed between them, no wider and no more than the paper has."""
    blocks = _BLOCKS if _can_encode(_BLOCKS, paper.encoding) else _PLAIN
    sheet = Console(
        file=StringIO(),
        width=max(_NARROWEST, paper.width),
        height=paper.height,
        force_terminal=paper.colours,
        color_system="standard" if paper.colours else None,
        no_color=paper.plain,
        legacy_windows=False,
        markup=False,
        emoji=False,
        highlight=False,
        # What the environment says has been asked for by whoever made the paper.
        _environ={},
    )
    room = 10_000 if paper.height is None else paper.height - _HEAD
    parts: list[RenderableType] = [_head(picture, caption)]
    if picture is not None:
        parts += _tables(picture, room, blocks)
    with sheet.capture() as captured:
        sheet.print(Group(*parts), soft_wrap=False)
    lines = [line.rstrip(" ") for line in captured.get().rstrip("\n").split("\n")]
    return "\n".join(lines if paper.height is None else lines[: paper.height])


def _can_encode(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _head(picture: Picture | None, caption: Caption) -> RenderableType:
    title = _text()
    title.append(shown(picture.version if picture is not None else "pgproxy"), "bold")
    title.append(f"  {shown(caption.where)}")
    if picture is not None and not caption.alarm:
        title.append(
            f"  {picture.state.replace('_', ' ')}", "green" if picture.state == "active" else "bold yellow"
        )
    lines: list[RenderableType] = [_row(title, caption.clock)]
    if caption.alarm:
        lines.append(Text(shown(caption.alarm), "bold red", no_wrap=True, overflow="ellipsis"))
    elif picture is not None:
        lines.append(_pieces("Rates", ", ".join(_rate_words(picture.rates))))
    if picture is not None:
        lines += [
            _row(_client_words(picture.clients), _process_words(picture.process)),
            _pieces("Servers", f"{picture.servers.all:,}: {_server_words(picture.servers)}"),
        ]
    return Group(*lines)


def _text() -> Text:
    return Text(no_wrap=True, overflow="ellipsis")


def _row(left: Text, right: str) -> Table:
    row = Table.grid(expand=True, padding=(0, 1))
    row.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    row.add_column(no_wrap=True, justify="right")
    row.add_row(left, Text(right))
    return row


def _pieces(name: str, *pieces: str | tuple[str, str]) -> Text:
    text = _text()
    text.append(f"{name:<8} ", "bold")
    for piece in pieces:
        text.append(*((piece,) if isinstance(piece, str) else piece))
    return text


def _client_words(clients: Clients) -> Text:
    if not clients.waiting:
        return _pieces("Clients", f"{clients.all:,}: none waiting")
    waiting = f"{clients.waiting:,} waiting, the longest for {time(clients.longest_wait)}"
    return _pieces("Clients", f"{clients.all:,}: ", (waiting, "bold yellow"))


def _rate_words(rates: Rates | None) -> list[str]:
    if rates is None:
        return ["not known before another look"]
    return [
        f"{number(rates.transactions)} transactions/s",
        f"{number(rates.queries)} queries/s",
        f"{bytes_(rates.received)}/s in",
        f"{bytes_(rates.sent)}/s out",
    ]


def _server_words(servers: Servers) -> str:
    words = [f"{servers.used:,} used"]
    kept = [
        f"{count:,} {what}"
        for count, what in ((servers.pinned, "pinned"), (servers.in_transaction, "idle in transaction"))
        if count
    ]
    if kept:
        words[0] += f" ({', '.join(kept)})"
    words.append(f"{servers.idle:,} idle")
    words += [
        f"{count:,} {what}"
        for count, what in ((servers.opening, "opening"), (servers.others, "other"))
        if count
    ]
    return ", ".join(words)


def _process_words(process: Process) -> str:
    said = f"{process.workers} workers, " if process.workers > 1 else ""
    if process.cpu is not None:
        said += f"CPU {process.cpu * 100:.0f} %, "
    return f"{said}{bytes_(process.memory)}"


# Tables.


def _tables(picture: Picture, room: int, blocks: str) -> list[RenderableType]:
    wanted = {
        "pools": len(picture.pools),
        "targets": len(picture.targets),
        "statements": len(picture.statements),
        "pins": len(picture.pins),
    }
    given = shares(room, wanted)
    parts: list[RenderableType] = []
    if given["pools"]:
        parts.append(_pools(picture.pools, given["pools"], blocks))
    if given["targets"]:
        parts.append(_targets(picture.targets, given["targets"]))
    if given["pins"]:
        parts.append(_pins(picture.pins, given["pins"]))
    if given["statements"]:
        parts.append(_statements(picture.statements, given["statements"]))
    return [part for one in parts for part in (Text(), one)]


def _table(*columns: tuple[str, str]) -> Table:
    """Make a table; a column's second word is left, right, or how much of what is left it gets."""
    table = Table(box=None, expand=True, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold underline")
    for name, kind in columns:
        if kind.isdigit():
            table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=int(kind))
        else:
            table.add_column(name, no_wrap=True, justify="right" if kind == "right" else "left")
    return table


def _pools(pools: list[Pool], room: int, blocks: str) -> Table:
    table = _table(
        ("Pool", "1"),
        ("", "left"),
        *((name, "right") for name in ("Used", "Idle", "Max", "Clients", "Wait", "Longest")),
    )
    for pool in pools[: room if len(pools) <= room else room - 1]:
        name = Text(f"{shown(pool.database)}/{shown(pool.user)}")
        if pool.paused:
            name.append("  paused", "bold yellow")
        elif pool.mode != "transaction":
            name.append(f"  {shown(pool.mode)}", "dim")
        waits = "bold yellow" if pool.waiting else ""
        table.add_row(
            name,
            _bar(pool, blocks),
            f"{pool.used:,}",
            f"{pool.idle:,}",
            f"{pool.most:,}" if pool.most else "-",
            f"{pool.clients:,}",
            Text(f"{pool.waiting:,}", waits),
            Text(time(pool.longest_wait) if pool.waiting else "", waits),
        )
    _rest(table, len(pools), room, "pools")
    return table


def _bar(pool: Pool, blocks: str) -> Text:
    used, idle, free = cells(pool.used, pool.idle, pool.most, _BAR)
    bar = Text()
    bar.append(blocks[0] * used, "red" if pool.most and pool.used >= pool.most else "green")
    bar.append(blocks[1] * idle, "cyan")
    bar.append(blocks[2] * free, "dim")
    return bar


def _targets(hosts: list[Host], room: int) -> Table:
    table = _table(
        ("Target", "2"),
        ("Host", "3"),
        ("Role", "left"),
        ("State", "left"),
        *((name, "right") for name in ("Lag", "Servers", "Max", "Wait")),
    )
    for host in hosts[: room if len(hosts) <= room else room - 1]:
        where = f"[{host.host}]:{host.port}" if ":" in host.host else f"{host.host}:{host.port}"
        table.add_row(
            Text(shown(host.target)),
            Text(shown(where)),
            Text(shown(host.role), "bold" if host.role == "writer" else ""),
            Text(shown(host.state), "green" if host.state == "up" else "bold red"),
            time(host.lag),
            f"{host.servers:,}",
            f"{host.most:,}" if host.most else "-",
            f"{host.waiting:,}",
        )
    _rest(table, len(hosts), room, "hosts")
    return table


def _pins(pins: list[Pins], room: int) -> Table:
    table = _table(("Pinned by", "left"), ("Clients", "right"), ("Longest", "right"), ("Its statement", "1"))
    for one in pins[: room if len(pins) <= room else room - 1]:
        table.add_row(Text(shown(one.reason)), f"{one.clients:,}", time(one.longest), Text(shown(one.digest)))
    _rest(table, len(pins), room, "reasons")
    return table


def _statements(statements: list[Statement], room: int) -> Table:
    table = _table(
        *((name, "right") for name in ("Load", "Calls", "Mean", "Max")), ("Database", "1"), ("Statement", "4")
    )
    # These are the slowest; that there are others goes without saying.
    for one in statements[:room]:
        table.add_row(
            number(one.load),
            number(one.calls),
            time(one.mean_ms / 1000),
            time(one.max_ms / 1000),
            Text(shown(one.database)),
            Text(shown(one.digest)),
        )
    return table


def _rest(table: Table, all_: int, room: int, what: str) -> None:
    if all_ > room:
        table.add_row(Text(f"and {all_ - room + 1:,} more {what}", "dim"))
