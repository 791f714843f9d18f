"""
What became of everything that clients have sent around a change of writer: the steps, the table, the verdict.

A *want* of a client begins with the first thing it sends after a success and ends with its next success: the
failures, reconnects and waits in between are part of it, the time that it thinks is not. The pause that a
client saw beyond the promotion is the longest of its wants as far as they lie behind the moment at which the
new writer was one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Literal

import attrs

from tests.cluster import Change

Kind = Literal["login", "set", "insert", "select", "begin", "work", "nap", "commit", "rollback", "ask"]
Outcome = Literal["ok", "error", "lost", "wrong"]
"""`lost`: the connection ended, with a FATAL error or without a word. `wrong`: the answer was another's."""
Row = tuple[int, int, int]
"""What an INSERT leaves: client, sequence number, part of its transaction."""


@attrs.frozen
class Step:
    """One thing that a client has sent, and what came of it. Times are of `time.monotonic()`."""

    client: int
    kind: Kind
    seq: int
    """Counts what the client has sent."""
    began: float
    ended: float
    outcome: Outcome
    code: str = ""
    """The SQLSTATE; `timeout` where the client has lost its patience."""
    said: str = ""
    """The error's text and hint."""
    status: str = ""
    """What ReadyForQuery said: I, T or E."""
    acknowledged: bool = False
    """A commit was confirmed: of an INSERT of its own, or with COMMIT and no ROLLBACK as its tag."""
    warned: bool = False
    """There was a warning, as that a commit may be on no standby."""
    transaction: float | None = None
    """When the BEGIN of the transaction was sent that it is in, or begins."""
    first: int = 0
    """The sequence number of that BEGIN, under which the rows of the transaction stand."""

    @property
    def is_inside(self) -> bool:
        """Whether it was sent in a transaction that was begun before."""
        return self.transaction is not None and self.kind != "begin"

    @property
    def is_answer(self) -> bool:
        """Whether it shows that the client is served: to have logged in is not enough."""
        return self.outcome == "ok" and self.kind != "login"


@attrs.frozen
class Verdict:
    """What clients saw. All but `pauses`, `gaps`, `unknown` and what is under way should be nothing."""

    clients: int
    steps: int
    change: Change | None
    lost: list[tuple[int, int]]
    """Acknowledged commits that are not in the table: client and sequence number."""
    doubled: list[tuple[int, int, int]]
    """Rows that are there more than once."""
    torn: list[tuple[int, int]]
    """Transactions of which a part is there."""
    wrong: list[Step]
    """Answers that were another's."""
    disconnects: Counter[str]
    """Connections that ended, by SQLSTATE; by `-` where nothing was said."""
    disconnected: int
    """Clients that this has happened to."""
    refused: Counter[str]
    """Logins that failed, by SQLSTATE."""
    in_transaction: Counter[str]
    """Errors to clients that were in a transaction when the writer went, by SQLSTATE."""
    under_way: Counter[str]
    """Errors to statements outside transactions that were sent before the writer was gone, by SQLSTATE."""
    errors: Counter[str]
    """Errors to all others, by SQLSTATE: nothing of what they were about had reached the old writer."""
    odd_states: Counter[str]
    """States that clients were left in by errors, other than PostgreSQL's: E in a transaction, else I."""
    settings_lost: list[str]
    """What idle clients had set and did not find again."""
    warned: int
    """Commits that were acknowledged with a warning: to a cancelled wait for a standby, say."""
    unknown: int
    """Commits that are there and were not acknowledged: an error said that their end is unknown."""
    pauses: dict[int, float]
    """By client, the seconds it waited longest, beyond the promotion."""
    gaps: dict[int, float]
    """By busy client, the longest seconds between two successes: promotion and its own thinking included."""

    @property
    def faults(self) -> dict[str, int]:
        """What never may be, by name, where it was."""
        counts = {
            "acknowledged commits lost": len(self.lost),
            "double executions": len(self.doubled),
            "transactions torn": len(self.torn),
            "answers of another": len(self.wrong),
            "settings lost": len(self.settings_lost),
            "disconnects": self.disconnects.total(),
            "errors outside transactions, nothing under way": self.errors.total(),
            "odd states after errors": self.odd_states.total(),
            "commits acknowledged with a warning": self.warned,
        }
        return {name: count for name, count in counts.items() if count}

    def figures(self) -> dict[str, str]:
        """Give what is worth a look, by name, in the order to print it in."""
        change = self.change
        return {
            "clients, steps": f"{self.clients}, {self.steps}",
            "promotion": f"{change.promotion * 1000:.0f} ms" if change else "-",
            "pause beyond it: median, longest": _spread(self.pauses.values()),
            "between two successes: median, longest": _spread(self.gaps.values()),
            "clients disconnected": f"{self.disconnected}{_codes(self.disconnects)}",
            "logins refused": f"{self.refused.total()}{_codes(self.refused)}",
            "errors in transactions": f"{self.in_transaction.total()}{_codes(self.in_transaction)}",
            "errors to statements under way": f"{self.under_way.total()}{_codes(self.under_way)}",
            "errors to others": f"{self.errors.total()}{_codes(self.errors)}",
            "odd states after errors": f"{self.odd_states.total()}{_codes(self.odd_states)}",
            "acknowledged commits lost": str(len(self.lost)),
            "commits acknowledged with a warning": str(self.warned),
            "commits there, not acknowledged": str(self.unknown),
            "double executions": str(len(self.doubled)),
            "transactions torn": str(len(self.torn)),
            "answers of another": str(len(self.wrong)),
            "settings lost": str(len(self.settings_lost)),
        }

    def __str__(self) -> str:
        figures = self.figures()
        width = max(map(len, figures))
        return "\n".join(f"{name:{width}}  {value}" for name, value in figures.items())


def judge(
    steps: Iterable[Step],
    rows: Iterable[Row],
    change: Change | None = None,
    *,
    until: float | None = None,
    nap: float = 0.0,
    settings_lost: Sequence[str] = (),
) -> Verdict:
    """
    Hold the steps of all clients against the rows that the surviving writer has.

    What is sent before `until` may have reached the old writer: without it, before that was gone. Where it
    only hangs nobody can know before some time has passed; say then when that had to be known. `nap` are the
    seconds that a step of this kind takes by itself.
    """
    all_steps = sorted(steps, key=lambda step: (step.client, step.seq))
    until = until if until is not None else change.gone if change else 0.0
    counts = Counter(rows)
    parts: dict[tuple[int, int], set[int]] = defaultdict(set)
    for client, seq, part in counts:
        parts[client, seq].add(part)
    acknowledged = {
        (step.client, step.first if step.kind == "commit" else step.seq)
        for step in all_steps
        if step.acknowledged
    }
    of_transactions = {(step.client, step.seq) for step in all_steps if step.kind == "begin"}
    troubles = [step for step in all_steps if step.outcome == "error"]
    ends = [step for step in all_steps if step.outcome == "lost" and step.kind != "login"]
    in_transaction, under_way, errors = Counter[str](), Counter[str](), Counter[str]()
    for step in troubles:
        sent = step.began if step.transaction is None else step.transaction
        kinds = errors if sent >= until else in_transaction if step.is_inside else under_way
        kinds[step.code] += 1
    by_client: dict[int, list[Step]] = defaultdict(list)
    for step in all_steps:
        by_client[step.client].append(step)
    busy = {client: mine for client, mine in by_client.items() if all(step.kind != "ask" for step in mine)}
    cut, writable = (change.cut, change.writable) if change else (0.0, 0.0)
    return Verdict(
        clients=len(by_client),
        steps=len(all_steps),
        change=change,
        lost=sorted(acknowledged - parts.keys()),
        doubled=sorted(key for key, count in counts.items() if count > 1),
        torn=sorted(key for key, seen in parts.items() if key in of_transactions and seen != {0, 1}),
        wrong=[step for step in all_steps if step.outcome == "wrong"],
        disconnects=Counter(step.code or "-" for step in ends),
        disconnected=len({step.client for step in ends}),
        refused=Counter(
            step.code or "-" for step in all_steps if step.kind == "login" and step.outcome == "lost"
        ),
        in_transaction=in_transaction,
        under_way=under_way,
        errors=errors,
        odd_states=Counter(
            f"{step.status} after {step.code}"
            for step in troubles
            if step.status != ("E" if step.is_inside and step.kind != "commit" else "I")
        ),
        settings_lost=list(settings_lost),
        warned=sum(step.acknowledged and step.warned for step in all_steps),
        unknown=len(parts.keys() - acknowledged),
        pauses=_known({client: _longest_want(mine, writable, nap) for client, mine in by_client.items()}),
        gaps=_known({client: _longest_gap(mine, cut) for client, mine in busy.items()}),
    )


def _longest_want(steps: Iterable[Step], since: float, nap: float) -> float | None:
    """Give the longest want of a client, as far as it lies behind a moment; None where it had none then."""
    longest, begin = None, None
    for step in steps:
        began = step.began + (nap if step.kind == "nap" else 0.0)
        begin = began if begin is None else begin
        if step.is_answer:
            if step.ended > since:
                longest = max(longest or 0.0, step.ended - max(begin, since))
            begin = None
    return longest


def _longest_gap(steps: Iterable[Step], since: float) -> float | None:
    """Give the longest time between two successes of a client, of which the second is behind a moment."""
    ends = [step.ended for step in steps if step.is_answer]
    return max((right - left for left, right in pairwise(ends) if right > since), default=None)


def _known(seconds: Mapping[int, float | None]) -> dict[int, float]:
    return {client: value for client, value in seconds.items() if value is not None}


def _spread(seconds: Iterable[float]) -> str:
    values = list(seconds)
    return f"{median(values) * 1000:.0f} ms, {max(values) * 1000:.0f} ms" if values else "-"


def _codes(counts: Counter[str]) -> str:
    return f" ({', '.join(f'{count} x {code}' for code, count in counts.most_common())})" if counts else ""
