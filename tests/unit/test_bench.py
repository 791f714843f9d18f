"""The benchmark's pure parts: reading pgbench, medians, ratios, tables."""

from pathlib import Path
from typing import ClassVar

import pytest

from bench import aws
from bench.pgbench import Access, PgbenchError, Report, Run, parse_log, parse_reason, parse_report, quantile
from bench.scenarios import SCENARIOS, Metric, Result, Route, figure
from bench.table import lay_out, ratio, table

REPORT = """\
pgbench (15.18 (Debian 15.18-0+deb12u1))
transaction type: <builtin: select only>
scaling factor: 10
query mode: simple
number of clients: 8
number of threads: 1
maximum number of tries: 1
duration: 4 s
number of transactions actually processed: 155331
number of failed transactions: 0 (0.000%)
latency average = 0.206 ms
initial connection time = 18.112 ms
tps = 38828.012345 (without initial connection time)
"""
RECONNECTING = """\
number of transactions actually processed: 458
number of failed transactions: 0 (0.000%)
latency average = 17.467 ms
average connection time = 16.093 ms
tps = 458.000123 (including reconnection times)
"""
SELECT = SCENARIOS[0]


class TestReport:
    def test_takes_the_rate_without_the_time_to_connect(self) -> None:
        assert parse_report(REPORT) == Report(155331, 38828.012345, None)

    def test_takes_the_time_of_a_connection_where_each_transaction_makes_one(self) -> None:
        assert parse_report(RECONNECTING) == Report(458, 458.000123, 16.093)

    def test_reads_pgbench_14_which_has_no_line_of_failures(self) -> None:
        assert parse_report(REPORT.replace("number of failed transactions: 0 (0.000%)\n", "")).transactions

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "it printed nothing"),
            ("usage: pgbench\n\n", "usage: pgbench"),
            (REPORT.replace("failed transactions: 0", "failed transactions: 3"), "3 transactions failed"),
            (REPORT.replace("processed: 155331", "processed: 0"), "no transaction was completed"),
            (REPORT.replace("tps =", "rate ="), "not in a form known here"),
        ],
    )
    def test_refuses_what_gives_no_figures(self, text: str, reason: str) -> None:
        with pytest.raises(PgbenchError, match=reason):
            parse_report(text)


class TestLog:
    def test_takes_the_third_word(self) -> None:
        assert parse_log(["0 199 2241 0 1175850568 995598\n", "1 7 90 0 1175850568 998079 33\n"]) == [
            2241,
            90,
        ]

    @pytest.mark.parametrize("line", ["0 0 failed 0 1175850568 995598", "0 199 2241", "\n"])
    def test_refuses_other_lines(self, line: str) -> None:
        with pytest.raises(PgbenchError):
            parse_log([line])

    @pytest.mark.parametrize(
        ("share", "value"), [(0.0, 1), (0.5, 50), (0.501, 51), (0.99, 99), (0.991, 100), (1.0, 100)]
    )
    def test_quantile_is_a_value_that_was_measured(self, share: float, value: int) -> None:
        assert quantile(range(1, 101), share) == value

    def test_quantile_of_one_value(self) -> None:
        assert quantile([7], 0.5) == quantile([7], 0.99) == 7


class TestReason:
    def test_is_the_first_error(self) -> None:
        said = (
            "pgbench (15.18)\n"
            'pgbench: error: connection to server at "127.0.0.1", port 6432 failed: FATAL:  no such user\n'
            "pgbench: error: Run was aborted; the above results are incomplete.\n"
        )
        assert parse_reason(said) == (
            'connection to server at "127.0.0.1", port 6432 failed: FATAL:  no such user'
        )

    def test_is_the_last_line_where_no_error_was_said(self) -> None:
        assert parse_reason("Killed\n\n") == "Killed"

    def test_is_there_always(self) -> None:
        assert parse_reason("") == "it printed nothing"


def test_a_password_is_neither_shown_nor_in_the_command() -> None:
    access = Access(6432, "bench", "s3cret", "bench", Path("/ca.crt"))
    assert "s3cret" not in repr(access) + access.conninfo(tls=True)


class TestScenarios:
    def test_each_has_its_own_name_and_title_within_its_pool_mode(self) -> None:
        assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
        assert len({(scenario.title, scenario.pool_mode) for scenario in SCENARIOS}) == len(SCENARIOS)

    def test_each_is_there_in_clear_and_in_tls_but_those_about_something_else(self) -> None:
        clear = {scenario.name for scenario in SCENARIOS if not scenario.tls} - {"marked", "one", "crowd"}
        assert {scenario.name for scenario in SCENARIOS if scenario.tls} == {f"{name}-tls" for name in clear}

    def test_what_has_a_bar_is_measured(self) -> None:
        for scenario in SCENARIOS:
            assert {bar.route for bar in scenario.bars} <= set(scenario.routes)


class TestMedian:
    @pytest.mark.parametrize(("values", "median"), [([3.0, 1.0, 2.0], 2.0), ([1.0, 4.0], 2.5), ([], None)])
    def test_is_over_the_rounds(self, values: list[float], median: float | None) -> None:
        result = Result(SELECT, Route.PGPROXY, [{Metric.CPU: value} for value in values])
        assert result.median(Metric.CPU) == median

    def test_is_not_there_for_what_was_not_measured(self) -> None:
        assert Result(SELECT, Route.DIRECT, [{Metric.P50: 1.0}]).median(Metric.CPU) is None

    def test_is_not_there_where_a_later_round_failed(self) -> None:
        assert Result(SELECT, Route.PGPROXY, [{Metric.CPU: 1.0}], "it ended").median(Metric.CPU) is None


class TestFigures:
    @pytest.mark.parametrize(
        ("value", "written"),
        [
            (38828.4, "38,828"),
            (100.0, "100"),
            (13.44, "13.4"),
            (1.149, "1.15"),
            (0.127, "0.127"),
        ],
    )
    def test_have_about_three_digits(self, value: float, written: str) -> None:
        assert figure(value) == written

    @pytest.mark.parametrize(
        ("value", "divisor", "written"),
        [(30.0, 20.0, "1.50"), (None, 20.0, "-"), (30.0, None, "-"), (30.0, 0.0, "-")],
    )
    def test_ratio(self, value: float | None, divisor: float | None, written: str) -> None:
        assert ratio(value, divisor) == written


class TestTable:
    rows: ClassVar = [["name", "rate"], ["-S", "1,000"], ["TPC-B", "9"]]

    def test_plain(self) -> None:
        assert table(self.rows, 1, markdown=False).splitlines() == [
            "name    rate",
            "-----  -----",
            "-S     1,000",
            "TPC-B      9",
        ]

    def test_markdown(self) -> None:
        assert table(self.rows, 1, markdown=True).splitlines() == [
            "| name  |  rate |",
            "| ----- | ----: |",
            "| -S    | 1,000 |",
            "| TPC-B |     9 |",
        ]


class TestReportOfAll:
    def test_puts_pgproxy_beside_the_others(self) -> None:
        text = lay_out(
            [
                Result(SELECT, Route.DIRECT, [{Metric.THROUGHPUT: 400.0}]),
                Result(SELECT, Route.PGPROXY, [{Metric.THROUGHPUT: 100.0, Metric.CPU: 30.0}]),
                Result(SELECT, Route.PGBOUNCER, [{Metric.THROUGHPUT: 200.0, Metric.CPU: 20.0}]),
            ],
            markdown=False,
        )
        bars, beside_pgbouncer, beside_direct, figures = text.split("\n\n")[1::2]
        assert bars.splitlines()[2].split() == [
            "-S",
            "transaction",
            *"pgproxy select CPU/query ÷ pgbouncer's 1.50 ≤ 1.00 50% over".split(),
        ]
        assert beside_pgbouncer.splitlines()[2].split() == ["-S", "transaction", "1.50", "0.50", *"----"]
        assert beside_direct.splitlines()[2].split() == ["-S", "transaction", "0.25", *"---"]
        assert figures.splitlines()[3].split()[2:5] == ["pgproxy", "30.0", "100"]

    def test_puts_what_pgbouncer_cannot_do_beside_what_stands_for_it(self) -> None:
        extended, prepared = (
            next(one for one in SCENARIOS if one.name == name) for name in ("extended", "prepared")
        )
        text = lay_out(
            [
                Result(extended, Route.PGBOUNCER, [{Metric.CPU: 20.0}]),
                Result(prepared, Route.PGPROXY, [{Metric.CPU: 18.0}]),
                Result(prepared, Route.PGBOUNCER, reason="it has none"),
            ],
            markdown=False,
        )
        row = text.split("\n\n")[1].splitlines()[2]
        assert row.split()[-9:] == "pgproxy extended CPU/query ÷ pgbouncer's 0.90 ≤ 1.00 met".split()

    def test_more_throughput_is_better_and_the_machines_limit_is_beside_it(self) -> None:
        text = lay_out(
            [
                Result(SELECT, Route.DIRECT, [{Metric.THROUGHPUT: 400.0}]),
                Result(SELECT, Route.WORKERS, [{Metric.THROUGHPUT: 240.0}]),
                Result(SELECT, Route.PGBOUNCER, [{Metric.THROUGHPUT: 200.0}]),
            ],
            markdown=False,
        )
        row = text.split("\n\n")[1].splitlines()[2]
        assert row.split()[-8:] == "÷ pgbouncer's 1.20 ≥ 1.50 20% short (direct: 2.00)".split()[-8:]

    def test_what_is_added_to_direct_and_what_counts_by_itself(self) -> None:
        one, idle = (next(each for each in SCENARIOS if each.name == name) for name in ("one", "idle"))
        text = lay_out(
            [
                Result(one, Route.DIRECT, [{Metric.P50: 1.0}]),
                Result(one, Route.PGPROXY, [{Metric.P50: 1.3}]),
                Result(one, Route.PGBOUNCER, [{Metric.P50: 1.2}]),
                Result(idle, Route.PGPROXY, [{Metric.MEMORY: 9.0}]),
            ],
            markdown=False,
        )
        added, itself = text.split("\n\n")[1].splitlines()[2:4]
        assert added.split()[-5:] == "1.50 ≤ 1.10 36% over".split()
        assert itself.split()[-4:] == "9.00 ≤ 12.00 met".split()

    def test_shows_a_failure_with_its_reason_once(self) -> None:
        scenarios = SCENARIOS[:2]
        results = [Result(scenario, Route.PGPROXY, reason="it ended") for scenario in scenarios]
        results += [Result(scenario, Route.PGBOUNCER, [{Metric.CPU: 20.0}]) for scenario in scenarios]
        text = lay_out(results, markdown=True)
        # Both scenarios, in the ratios and among the figures.
        assert text.count("n/a [1]") == 4
        assert text.endswith("- [1] pgproxy: it ended")
        assert "pgproxy ÷ direct" not in text


class TestAws:
    def test_the_middle_of_the_turns_and_the_worst_of_them(self) -> None:
        runs = [
            Run(Report(1, rate, None), 0.2, tail) for rate, tail in ((100.0, 3.0), (300.0, 1.0), (200.0, 2.0))
        ]
        text = aws.lay_out({"answers": runs, "hangs": runs[:1]})
        assert text.splitlines()[2].split("|")[1:6] == [
            " answers ",
            "       200 ",
            "  0.200 ",
            "   2.00 ",
            "          1.00 to 3.00 ",
        ]
        assert "3.00 to 3.00" in text
