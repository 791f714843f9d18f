"""Lays out the results: ratios to PgBouncer and to no pooler, the figures behind them, why one is missing."""

from collections.abc import Iterable, Sequence

from bench.scenarios import Metric, Result, Route, Scenario, figure

_BLANK = "-"
"""There is no such figure for this scenario or route."""

_UNITLESS = {
    Metric.CPU: "CPU/query",
    Metric.THROUGHPUT: "transactions/s",
    Metric.P50: "p50",
    Metric.P99: "p99",
    Metric.CONNECTING: "connecting",
    Metric.MEMORY: "memory/client",
}
_RATIOS = {
    Route.PGBOUNCER: tuple(Metric),
    Route.DIRECT: (Metric.THROUGHPUT, Metric.P50, Metric.P99, Metric.CONNECTING),
}
"""What pgproxy is put beside, and in what."""


def lay_out(results: Sequence[Result], markdown: bool) -> str:
    """Build the report: ratios to each of the others, the figures, and the reason for each n/a."""
    notes: list[str] = []
    parts = []
    bars = list(_bar_rows(results))
    if bars:
        head = ["scenario", "pool mode", "through", "beside", "CPU/query", "bar", ""]
        parts.append(_titled("CPU/query ÷ pgbouncer's, and its bar", [head, *bars], 4, markdown))
    for other, metrics in _RATIOS.items():
        rows = list(_ratio_rows(results, other, metrics, notes))
        if rows:
            head = ["scenario", "pool mode", *(_UNITLESS[metric] for metric in metrics)]
            parts.append(_titled(f"pgproxy ÷ {other}", [head, *rows], 2, markdown))
    head = ["scenario", "pool mode", "through", *Metric]
    parts.append(_titled("Figures", [head, *_figure_rows(results, notes)], 3, markdown))
    if notes:
        bullet = "- " if markdown else ""
        parts.append("\n".join(f"{bullet}[{number}] {note}" for number, note in enumerate(notes, start=1)))
    return "\n\n".join(parts)


def _bar_rows(results: Sequence[Result]) -> Iterable[list[str]]:
    """Give a row for each ratio that has a bar."""
    found = {(result.scenario.name, result.route): result.median(Metric.CPU) for result in results}
    for result in results:
        scenario = result.scenario
        bar = scenario.bars.get(result.route)
        value = result.median(Metric.CPU)
        for beside in (scenario.name, scenario.beside):
            divisor = found.get((beside, Route.PGBOUNCER))
            if bar is not None and value is not None and divisor:
                met = "met" if value / divisor <= bar else f"{value / divisor / bar - 1:.0%} over"
                yield [*_place(scenario), result.route, beside, ratio(value, divisor), f"{bar:.2f}", met]
                break


def _ratio_rows(
    results: Sequence[Result], other: Route, metrics: Sequence[Metric], notes: list[str]
) -> Iterable[list[str]]:
    """Give a row for each scenario that both pgproxy and the other were put through."""
    found = {(result.scenario, result.route): result for result in results}
    for (scenario, route), theirs in found.items():
        ours = found.get((scenario, Route.PGPROXY))
        if route is other and ours is not None:
            yield [*_place(scenario), *_cells(metrics, notes, ours, theirs)]


def _figure_rows(results: Iterable[Result], notes: list[str]) -> Iterable[list[str]]:
    for result in results:
        yield [*_place(result.scenario), result.route, *_cells(tuple(Metric), notes, result)]


def _place(scenario: Scenario) -> list[str]:
    return [scenario.title, scenario.pool_mode]


def _cells(
    metrics: Sequence[Metric], notes: list[str], result: Result, divisor: Result | None = None
) -> list[str]:
    """Write figures, or their ratios to another result's; where one failed, the mark of the reason."""
    reasons = [
        _number(f"{failed.route}: {failed.reason}", notes)
        for failed in (result, divisor)
        if failed is not None and failed.reason is not None
    ]
    if reasons:
        return ["n/a " + " ".join(reasons), *[_BLANK] * (len(metrics) - 1)]
    if divisor is None:
        return [
            figure(value) if (value := result.median(metric)) is not None else _BLANK for metric in metrics
        ]
    return [ratio(result.median(metric), divisor.median(metric)) for metric in metrics]


def _number(note: str, notes: list[str]) -> str:
    """Give the mark of a note, which is added where it's new."""
    if note not in notes:
        notes.append(note)
    return f"[{notes.index(note) + 1}]"


def ratio(value: float | None, divisor: float | None) -> str:
    """Write how many times the divisor a figure is."""
    return f"{value / divisor:.2f}" if value is not None and divisor else _BLANK


def _titled(title: str, rows: Sequence[Sequence[str]], words: int, markdown: bool) -> str:
    return f"{'### ' if markdown else ''}{title}\n\n{table(rows, words, markdown)}"


def table(rows: Sequence[Sequence[str]], words: int, markdown: bool) -> str:
    """Write rows, first the head, in Markdown or plain columns; so many columns from the left hold words."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        [
            cell.ljust(width) if place < words else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
    rule = ["-" * width for width in widths]
    if not markdown:
        return "\n".join("  ".join(line).rstrip() for line in (lines[0], rule, *lines[1:]))
    rule[words:] = [dashes[1:] + ":" for dashes in rule[words:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))
