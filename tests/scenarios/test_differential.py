"""
Random programs of SQL, over clients that take turns, answer through pgproxy as they do directly.

pgproxy has two servers for three clients. PGPROXY_EXAMPLES=500 tries so many programs, others each time.
"""

from __future__ import annotations

import os
from datetime import timedelta

from hypothesis import HealthCheck, Phase, given, settings

from tests.answers import Answer, Player
from tests.examples import examples
from tests.fix_twin import Theatre, Twin
from tests.generate import SETUP, Act, Move, acts
from tests.programs import Admin, Program, Step, Transcript, compare, play
from tests.stages import Direct

EXAMPLES = os.environ.get("PGPROXY_EXAMPLES")
SOME = settings(
    max_examples=examples(25),
    derandomize=EXAMPLES is None,
    database=None,
    deadline=timedelta(seconds=60),
    print_blob=True,
    phases=list(Phase) if EXAMPLES else [Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
SERVERS = 2
REASONS = frozenset(
    ("temporary_object", "held_cursor", "advisory_lock", "listen", "sequence", "sql_statement")
)


class Director:
    """
    Plays moves directly, and makes the program of them that can be played with so few servers.

    A move is left out where its client would wait for ever, because as many others as there are servers are
    in a transaction or may be pinned.
    """

    def __init__(self, stage: Direct, user: str) -> None:
        self.stage = stage
        self.user = user
        self.parts: list[Admin | Step] = [Admin(SETUP)]
        self.transcript: Transcript = []
        self.players: dict[str, Player] = {}
        self.pinned: set[str] = set()

    def perform(self, client: str, data: str | bytes) -> Answer:
        step = Step(client, data)
        if client not in self.players:
            self.players[client] = Player(
                self.stage.port, {"user": self.user, "database": self.stage.database}
            )
        answer = self.players[client].perform(step.messages(self.stage.database))
        self.parts.append(step)
        self.transcript.append((step, answer))
        return answer

    def holds(self, client: str) -> bool:
        return client in self.pinned or (client in self.players and not self.players[client].idle)

    def move(self, move: Move) -> None:
        holding = {client for client in self.players if self.holds(client)} | {move.client}
        if len(holding) > SERVERS:
            return
        data = move.data.encode() if isinstance(move.data, str) else move.data
        deaf = b"unlisten" in data or b"discard all" in data
        if deaf and move.client in self.players and self.players[move.client].idle:
            self.perform(move.client, "notify nobody")  # what's under way to it comes before, or never
        answer = self.perform(move.client, move.data)
        if move.pins:
            self.pinned.add(move.client)
        if ("Z", "E") in answer.replies[-1:] and len(self.parts) % 2:
            self.perform(move.client, "rollback")  # or the program is all about one error
        if ("C", "DISCARD ALL") in answer.replies and self.players[move.client].idle:
            self.pinned.discard(move.client)

    def end(self) -> None:
        """Have the clients hear what is under way to them."""
        for client in sorted(self.players):
            if self.holds(client):
                self.perform(client, "rollback")
                self.perform(client, "notify nobody")
                self.perform(client, "discard all")

    def close(self) -> None:
        for name, player in sorted(self.players.items()):
            if player.notifications:
                heard = tuple(("A", notification) for notification in player.notifications)
                self.transcript.append((Step(name, "(notifications)"), Answer(heard)))
            player.leave()


def direct(twin: Twin, act: Act) -> tuple[Program, Transcript]:
    """Play an act with direct connections; give the program that it is, and its answers."""
    twin.clean("direct")
    director = Director(Direct(twin, "direct"), act.user)
    director.stage.admin(SETUP)
    try:
        for move in act.moves:
            director.move(move)
        director.end()
    finally:
        director.close()
    may_pin = REASONS if any(move.pins for move in act.moves) else frozenset()
    made = Program("random", director.parts, servers=(SERVERS,), may_pin=may_pin, user=act.user)
    return made, director.transcript


@given(act=acts())
@SOME
def test_programs_answer_the_same_twice(twin: Twin, act: Act) -> None:
    """Directly: whatever differs here is the test's fault."""
    program, answers = direct(twin, act)
    twin.clean("twin")
    compare(program, answers, play(program, Direct(twin, "twin")))


@given(act=acts())
@SOME
def test_programs_answer_through_pgproxy_as_directly(theatre: Theatre, twin: Twin, act: Act) -> None:
    program, answers = direct(twin, act)
    compare(program, answers, theatre.through(program, SERVERS))
