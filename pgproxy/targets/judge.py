"""
Who is the writer, and who are the readers: judged from what all hosts say.

The law:

1. A host is the writer only because it says itself, just now, that it is not in recovery.
2. Of several that say so the one with the highest timeline is: each promotion begins a higher one. Where that
   does not tell them apart, the present writer stays, or else there is none.
3. A host that says so is not believed where a higher timeline is known: a writer's before it, or that of most
   readers. So an old writer that comes back is fenced, whoever else is silent.
4. A host that belongs to another cluster than most is nobody's writer or reader.
5. The present writer stays the writer while it is only silent: nobody else may be. Where it says that it is
   in recovery, or another is the writer, it is no longer.
6. A reader is a host that says that it is in recovery, answers, and is not further behind than `max_lag`. It
   comes back in with half of that.

Time comes in as `now`, seconds.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping

from attrs import define, evolve, field, frozen

from pgproxy.targets.facts import Address, Answer, Trouble
from pgproxy.targets.history import Change, Entry, History

_SAMPLES = 600
"""How many of the writer's positions are kept to tell how far readers are behind."""


@frozen
class Roles:
    """Who does what, as far as it is known."""

    writer: Address | None
    readers: tuple[Address, ...]
    lost: Address | None = None
    """Who was the writer last, where there is none now."""
    up: bool = False
    """Whether the writer has answered the last question."""
    weights: Mapping[Address, int] = {}
    """What each reader can take, to the others: its max_connections."""
    dead: frozenset[Address] = frozenset()
    """Hosts that are no readers because they do not answer."""
    given_up: bool = False
    """Whether the writer has not answered for `host_timeout`."""
    blind: bool = False
    """Whether no host has ever said anything of itself: nobody knows who is the writer, then."""


@define(eq=False)
class HostState:
    """What is known of one host."""

    address: Address
    answer: Answer | None = None
    """What it said last."""
    answered_at: float = 0.0
    trouble: Trouble | None = None
    """Why the last question has no answer, if so."""
    why: str = ""
    """The same in words."""
    silent_since: float | None = None
    """Since when it has not answered."""
    behind_since: float | None = None
    """When the writer first wrote what this reader has not replayed."""
    serves: bool = False
    """Whether it is one of the readers."""
    strange: bool = False
    """Whether it belongs to another cluster."""
    fenced: str = ""
    """Why it is not believed to be the writer, if so."""
    weight: int = field(default=1)
    """Its max_connections, as far as it has said so."""

    def answers(self) -> bool:
        """Say whether the last question has been answered."""
        return self.answer is not None and self.trouble is None

    @property
    def lag(self) -> float:
        """For how many seconds it had not replayed what the writer had written, when it answered last."""
        return 0.0 if self.behind_since is None else self.answered_at - self.behind_since


class Judge:
    """
    The roles of one target's hosts.

    `host_timeout`: seconds without an answer after which a host is given up. `max_lag`: seconds; 0: no limit.
    """

    def __init__(self, host_timeout: float, max_lag: float) -> None:
        self.host_timeout = host_timeout
        self.max_lag = max_lag
        self.hosts: dict[Address, HostState] = {}
        self.not_for_reading: frozenset[Address] = frozenset()
        """Hosts from which nobody is to read, though they may be in recovery."""
        self.history = History()
        self.roles = Roles(None, ())
        self._timeline = 0
        """The highest that a writer has had."""
        self._system = ""
        self._written: deque[tuple[float, int]] = deque(maxlen=_SAMPLES)
        """When the writer was where."""

    # What is told.

    def go_on_from(self, before: Judge) -> None:
        """Know what another has found out, who has watched the same target until now."""
        self.history = before.history
        self._timeline = before._timeline
        self._system = before._system

    def set_hosts(self, addresses: Iterable[Address], now: float) -> list[Entry]:
        """Take the list of hosts."""
        listed = dict.fromkeys(addresses)
        entries = []
        for address in [known for known in self.hosts if known not in listed]:
            del self.hosts[address]
            entries.append(Entry(now, address, Change.GONE, "it is in the list of hosts no more"))
        for address in listed:
            if address not in self.hosts:
                self.hosts[address] = HostState(address)
                entries.append(Entry(now, address, Change.FOUND, "it is in the list of hosts"))
        return self._enter(entries) + self.judge(now)

    def answered(self, address: Address, answer: Answer, now: float) -> list[Entry]:
        """Take a host's answer."""
        host = self.hosts.get(address)
        if host is None:
            return []
        host.answer, host.answered_at = answer, now
        host.trouble, host.why, host.silent_since = None, "", None
        host.weight = max(1, answer.max_connections)
        return self.judge(now)

    def failed(self, address: Address, trouble: Trouble, why: str, now: float) -> list[Entry]:
        """Take the word that a host has not answered."""
        host = self.hosts.get(address)
        if host is None:
            return []
        host.trouble, host.why = trouble, why
        if trouble is Trouble.REFUSED:
            # It is there: what it has against the watcher need not concern anybody else.
            host.silent_since = None
        elif host.silent_since is None:
            host.silent_since = now
        return self.judge(now)

    @property
    def all_asked(self) -> bool:
        """Whether each host has answered, or not answered, at some time."""
        return all(host.answer is not None or host.trouble is not None for host in self.hosts.values())

    # What comes of it.

    def judge(self, now: float) -> list[Entry]:
        """Judge anew; give what has changed."""
        entries = self._find_strangers(now)
        entries += self._find_writer(now)
        self._measure(now)
        entries += self._find_readers(now)
        return self._enter(entries)

    def _enter(self, entries: list[Entry]) -> list[Entry]:
        for entry in entries:
            self.history.add(entry)
        return entries

    def _find_strangers(self, now: float) -> list[Entry]:
        """Find out which cluster this is, and who belongs to another (rule 4)."""
        said = Counter(
            host.answer.system for host in self.hosts.values() if host.answer and host.answer.system
        )
        if not said:
            return []
        most, count = said.most_common(1)[0]
        if self._system not in said or count > said[self._system]:
            if self._system:
                # Another cluster has taken its place: what was known of timelines holds no more.
                self._timeline = 0
                self._written.clear()
            self._system = most
        entries = []
        for host in self.hosts.values():
            strange = bool(host.answer and host.answer.system and host.answer.system != self._system)
            if strange and not host.strange:
                entries.append(Entry(now, host.address, Change.STRANGER, "it belongs to another cluster"))
            host.strange = strange
        return entries

    def _fence(self, host: HostState, why: str, now: float) -> list[Entry]:
        """Enter why a host is not believed; an empty reason takes that back."""
        news = bool(why) and not host.fenced
        host.fenced = why
        return [Entry(now, host.address, Change.FENCED, why)] if news else []

    def _find_writer(self, now: float) -> list[Entry]:
        before = self.roles
        claim: list[tuple[int, HostState]] = []
        entries = []
        known = self._known_timeline()
        for host in self.hosts.values():
            answer = host.answer
            if not host.answers() or answer is None or answer.in_recovery:
                entries += self._fence(host, "", now)
            elif host.strange:
                entries += self._fence(host, "", now)
            elif answer.timeline and answer.timeline < known:
                why = f"it is on timeline {answer.timeline}, and timeline {known} is known"
                entries += self._fence(host, why, now)
            else:
                claim.append((answer.timeline, host))
        highest = max((timeline for timeline, _host in claim), default=0)
        # One that does not say its timeline may be on any.
        tells = all(timeline for timeline, _host in claim)
        best = [host for timeline, host in claim if timeline == highest or not tells]
        for timeline, host in claim:
            if timeline < highest and tells:
                why = f"it is on timeline {timeline}, and another writer is on {highest}"
                entries += self._fence(host, why, now)
        if len(best) > 1:
            present = [host for host in best if host.address == before.writer]
            for host in best:
                if host not in present:
                    same = f"on the same timeline ({highest})" if tells else "and not all say their timeline"
                    why = f"another host says so, too, {same}"
                    entries += self._fence(host, why, now)
            best = present
        if best:
            entries += self._fence(best[0], "", now)
            highest = next(timeline for timeline, host in claim if host is best[0])
        writer = best[0] if best else self._silent_writer(before)
        return entries + self._new_writer(before, writer, highest, now)

    def _known_timeline(self) -> int:
        """Give the highest timeline that is certain: a writer's before, or most readers' (rule 3)."""
        readers = sorted(
            host.answer.timeline
            for host in self.hosts.values()
            if host.answers() and host.answer is not None and host.answer.in_recovery and not host.strange
        )
        # More than half of them are at or above this one.
        most = readers[(len(readers) - 1) // 2] if readers else 0
        return max(self._timeline, most)

    def _silent_writer(self, before: Roles) -> HostState | None:
        """Give the present writer if it may still be one (rule 5)."""
        host = self.hosts.get(before.writer) if before.writer is not None else None
        if host is None or host.fenced or host.strange:
            return None
        return None if host.answers() else host

    def _new_writer(self, before: Roles, writer: HostState | None, timeline: int, now: float) -> list[Entry]:
        entries = []
        address = writer.address if writer is not None else None
        up = writer is not None and writer.answers()
        if up and timeline:
            self._timeline = max(self._timeline, timeline)
        if address != before.writer:
            if before.writer is not None:
                entries.append(
                    Entry(now, before.writer, Change.NO_LONGER_WRITER, self._why_not(before, address))
                )
            if writer is not None:
                why = (
                    f"it is not in recovery, on timeline {timeline}" if timeline else "it is not in recovery"
                )
                entries.append(Entry(now, writer.address, Change.BECAME_WRITER, why))
            self._written.clear()
        given_up = (
            writer is not None
            and writer.silent_since is not None
            and now - writer.silent_since >= self.host_timeout
        )
        if writer is not None and address == before.writer and given_up != before.given_up:
            change = Change.WRITER_SILENT if given_up else Change.WRITER_BACK
            entries.append(Entry(now, writer.address, change, writer.why or "it answers"))
        lost = None if address is not None else before.writer or before.lost
        blind = all(host.answer is None for host in self.hosts.values())
        self.roles = evolve(before, writer=address, lost=lost, up=up, given_up=given_up, blind=blind)
        return entries

    def _why_not(self, before: Roles, after: Address | None) -> str:
        host = self.hosts.get(before.writer) if before.writer is not None else None
        if host is None:
            return "it is in the list of hosts no more"
        if host.answers() and host.answer is not None and host.answer.in_recovery:
            return "it is in recovery"
        if after is not None:
            return f"{after} is" + (f"; it does not answer: {host.why}" if host.why else "")
        return host.fenced or ("it belongs to another cluster" if host.strange else "another is")

    def _measure(self, now: float) -> None:
        """See how far readers are behind: the time since the writer was where a reader has not come yet."""
        writer = self.hosts.get(self.roles.writer) if self.roles.writer is not None else None
        if writer is not None and writer.answers() and writer.answer is not None and writer.answer.lsn:
            last = self._written[-1][1] if self._written else -1
            if writer.answer.lsn > last:
                self._written.append((writer.answered_at, writer.answer.lsn))
        for host in self.hosts.values():
            if host is writer or host.answer is None or not host.answer.in_recovery or not host.answer.lsn:
                host.behind_since = None
                continue
            at = host.answer.lsn
            written = (when for when, lsn in self._written if lsn > at and when <= host.answered_at)
            host.behind_since = next(written, None)

    def _find_readers(self, now: float) -> list[Entry]:
        entries = []
        for host in self.hosts.values():
            why = self._why_no_reader(host, now)
            if host.serves is bool(why):
                host.serves = not why
                change = Change.READER_OUT if why else Change.READER_IN
                entries.append(Entry(now, host.address, change, why or "it is in recovery and answers"))
        readers = tuple(host.address for host in self.hosts.values() if host.serves)
        weights = {host.address: host.weight for host in self.hosts.values() if host.serves}
        dead = frozenset(
            host.address
            for host in self.hosts.values()
            if not host.serves and host.trouble not in (None, Trouble.REFUSED)
        )
        self.roles = evolve(self.roles, readers=readers, weights=weights, dead=dead)
        return entries

    def _why_no_reader(self, host: HostState, now: float) -> str:
        """Say why a host is none of the readers; empty if it is one (rule 6)."""
        if host.answer is None or not host.answer.in_recovery:
            return host.why or "it is not in recovery"
        if host.strange:
            return "it belongs to another cluster"
        if host.address in self.not_for_reading:
            return "it is not to be read from (noloadbalance)"
        if host.trouble is not None and not self._is_patient(host, now):
            return host.why or host.trouble.value
        limit = self.max_lag if host.serves else self.max_lag / 2
        if self.max_lag and host.lag > limit:
            return f"it is {host.lag:.1f} s behind the writer (max_reader_lag)"
        return ""

    def _is_patient(self, host: HostState, now: float) -> bool:
        """Say whether a reader that does not answer still is one: for a while, if it is only silent."""
        return (
            host.serves
            and host.trouble is Trouble.SILENT
            and host.silent_since is not None
            and now - host.silent_since < self.host_timeout
        )
