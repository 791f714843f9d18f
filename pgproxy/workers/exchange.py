"""What one worker has for the others, and the supervisor passes on: cancel requests, numbers, greetings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from structlog.typing import FilteringBoundLogger
from twisted.internet.defer import Deferred, DeferredList
from twisted.protocols.amp import Command

from pgproxy.workers import messages
from pgproxy.workers.post import Post

_WELCOMES_KEPT = 1000


class Exchange:
    """The lines to all workers; those are named by life."""

    def __init__(self, posts: list[Post], log: FilteringBoundLogger) -> None:
        self._posts = posts
        self._log = log
        self._clients: dict[int, int] = {}
        self._welcomes: dict[tuple[str, str, bytes], bytes] = {}
        """By database, user and startup parameters, how servers greet."""
        self.predecessor: Callable[[int, bytes], Deferred[bool]] | None = None
        """Has the process before this one cancel, see `cancel`; None where there was none."""

    def tell(self, worker: int, command: type[Command], **arguments: Any) -> None:
        """Tell one something."""
        for post in self._posts:
            if post.life == worker:
                post.tell(command, **arguments)

    def tell_all(self, command: type[Command], but: int = 0, **arguments: Any) -> None:
        """Tell all but one something."""
        for post in self._posts:
            if post.life != but:
                post.tell(command, **arguments)

    def greet(self, worker: int) -> None:
        """Tell a new worker what the others have."""
        self._share_clients()
        for pool, greeting in self._welcomes.items():
            self.tell(worker, messages.Welcome, **_welcome(pool, greeting))

    def ended(self, worker: int) -> None:
        """Enter that a worker has ended."""
        self._clients.pop(worker, None)
        self._share_clients()

    # Clients.

    @property
    def clients(self) -> int:
        """How many there are."""
        return sum(self._clients.values())

    def clients_of(self, worker: int) -> int:
        """Say how many one worker has."""
        return self._clients.get(worker, 0)

    def count_clients(self, worker: int, number: int) -> None:
        """Take the word how many clients a worker has."""
        self._clients[worker] = number
        self._share_clients(worker)

    def _share_clients(self, but: int = 0) -> None:
        everywhere = self.clients
        for post in self._posts:
            if post.life != but:
                post.tell(messages.Clients, number=everywhere - self.clients_of(post.life))

    def cancel(self, worker: int, pid: int, secret: bytes) -> Deferred[bool]:
        """Have cancelled what a client of another worker has under way; fires with whether there is one."""
        asked = [
            post.ask(messages.Cancel, pid=pid, secret=secret) for post in self._posts if post.life != worker
        ]
        answers: Deferred[Any] = DeferredList(asked, consumeErrors=True)
        return answers.addCallback(self._found, pid, secret)

    def _found(self, answers: list[tuple[bool, Any]], pid: int, secret: bytes) -> Any:
        if any(answered and answer["found"] for answered, answer in answers):
            return True
        if self.predecessor is not None:
            return self.predecessor(pid, secret).addCallback(self._found_before)
        return self._found_before(False)

    def _found_before(self, found: bool) -> bool:
        if not found:
            self._log.info("cancel_request", found=False, sent=False)
        return found

    # Servers.

    def welcome(self, worker: int, pool: tuple[str, str, bytes], greeting: bytes) -> None:
        """Tell the other workers how a server of a pool greets, so that nobody needs one to log in."""
        if len(self._welcomes) >= _WELCOMES_KEPT:
            del self._welcomes[next(iter(self._welcomes))]
        self._welcomes[pool] = greeting
        self.tell_all(messages.Welcome, but=worker, **_welcome(pool, greeting))

    def forget(self, database: str, user: str) -> None:
        """Take the word that no worker has this pool any more."""
        for pool in [pool for pool in self._welcomes if pool[:2] == (database, user)]:
            del self._welcomes[pool]
        self.tell_all(messages.Forget, database=database, user=user)

    def forget_welcomes(self) -> None:
        """Enter that servers may greet otherwise now."""
        self._welcomes.clear()

    def make_way(self, worker: int, target: str, databases: list[bytes]) -> None:
        """Have the other workers' idle servers leave these databases."""
        self.forget_welcomes()
        self.tell_all(messages.MakeWay, but=worker, target=target, databases=databases)

    def defaults_changed(self, worker: int, target: str) -> None:
        """Have the other workers open new servers from now on."""
        self.forget_welcomes()
        self.tell_all(messages.DefaultsChanged, but=worker, target=target)


def _welcome(pool: tuple[str, str, bytes], greeting: bytes) -> dict[str, Any]:
    database, user, parameters = pool
    return {"database": database, "user": user, "parameters": parameters, "greeting": greeting}
