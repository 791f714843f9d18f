"""Who accepts connections for workers that are not there."""

from __future__ import annotations

from pgproxy.workers import messages
from pgproxy.workers.exchange import Exchange
from pgproxy.workers.post import Post


class Tending:
    """The sockets of all places: each has somebody who accepts, as long as anybody is there at all."""

    def __init__(self, posts: list[Post], exchange: Exchange) -> None:
        self._posts = posts
        self._exchange = exchange
        self._keepers: dict[int, int] = {}
        """By worker that is not there, the life of the one that accepts its connections."""
        self._nobody: set[int] = set()
        """Workers that are not there, and for which there was nobody else."""

    def serves(self, post: Post) -> None:
        """Enter that a worker serves: itself, and what nobody did."""
        self._nobody.discard(post.number)
        keeper = self._keepers.pop(post.number, None)
        if keeper is not None:
            self._exchange.tell(keeper, messages.Tend, number=post.number, on=False)
        for number in list(self._nobody):
            self._give_away(self._posts[number - 1])

    def ended(self, post: Post, life: int) -> None:
        """Enter that a worker has ended."""
        for number, keeper in list(self._keepers.items()):
            if keeper == life:
                del self._keepers[number]
                self._give_away(self._posts[number - 1])
        self._give_away(post)

    def _give_away(self, post: Post) -> None:
        there = [other for other in self._posts if other.ready and other is not post]
        if not there:
            self._nobody.add(post.number)
            return
        self._nobody.discard(post.number)
        keeper = min(there, key=lambda other: self._exchange.clients_of(other.life)).life
        self._keepers[post.number] = keeper
        self._exchange.tell(keeper, messages.Tend, number=post.number, on=True)
