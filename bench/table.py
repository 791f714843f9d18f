"""Lays out the results: ratios to PgBouncer and to no pooler, the figures behind them, why one is missing."""

from collections.abc import Iterable, Mapping, Sequence

from bench.scenarios import Bar, Metric, Result, Route, Scenario, Sort, figure

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
        head = ["scenario", "pool mode", "through", "beside", "figure", "", "bar", ""]
        parts.append(_titled("Ratios and their bars", [head, *bars], 5, markdown))
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
    """Give a row for each figure that has a bar."""
    found = {(result.scenario.name, result.route): result for result in results}
    for result in results:
        scenario = result.scenario
        for bar in scenario.bars:
            if bar.route is result.route:
                beside, reached = _reached(result, bar, found)
                what = bar.metric if bar.sort is Sort.ITSELF else f"{_UNITLESS[bar.metric]} {bar.sort}"
                if reached is None:
                    judged = ["n/a", _limit(bar), ""]
                else:
                    judged = [f"{reached:.2f}", _limit(bar), _judgement(bar, reached)]
                if bar.metric is Metric.THROUGHPUT:
                    judged[2] += _machines_limit(scenario, found)
                yield [*_place(scenario), result.route, beside, what, *judged]


def _reached(result: Result, bar: Bar, found: Mapping[tuple[str, Route], Result]) -> tuple[str, float | None]:
    """Give the scenario that it was put beside, and what is to be compared with the bar."""
    scenario = result.scenario
    value = result.median(bar.metric)
    if bar.sort is Sort.ITSELF:
        return "", value
    for beside in (scenario.name, scenario.beside):
        theirs = found.get((beside, Route.PGBOUNCER))
        divisor = theirs.median(bar.metric) if theirs is not None else None
        if bar.sort is Sort.ADDED:
            direct = found.get((beside, Route.DIRECT))
            base = direct.median(bar.metric) if direct is not None else None
            if value is None or divisor is None or base is None:
                continue
            value, divisor = value - base, divisor - base
        if value is not None and divisor is not None and divisor > 0:
            return beside, value / divisor
    return scenario.name, None


def _limit(bar: Bar) -> str:
    return f"{'≥' if bar.metric is Metric.THROUGHPUT else '≤'} {bar.limit:.2f}"


def _judgement(bar: Bar, reached: float) -> str:
    more = reached / bar.limit - 1
    if bar.metric is Metric.THROUGHPUT:
        return "met" if more >= 0 else f"{-more:.0%} short"
    return "met" if more <= 0 else f"{more:.0%} over"


def _machines_limit(scenario: Scenario, found: Mapping[tuple[str, Route], Result]) -> str:
    """Say how many times PgBouncer's throughput there is without a pooler, on the same cores."""
    both = [found.get((scenario.name, route)) for route in (Route.DIRECT, Route.PGBOUNCER)]
    direct, theirs = (one.median(Metric.THROUGHPUT) if one is not None else None for one in both)
    return f" (direct: {direct / theirs:.2f})" if direct is not None and theirs else ""


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
