"""What would block the reactor is done in threads of our own: name look-ups, key derivation, side queries."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

Result = TypeVar("Result")

_KEYS_KEPT = 1000


class _Thread(threading.Thread):
    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, daemon=True, **named)


class DaemonPool(ThreadPool):
    """
    Threads that the end of the process doesn't wait for.

    They end when there is nothing to do: system calls are cheaper in a process with one thread.
    """

    threadFactory = _Thread
    _over = False
    """Whether there is no more work."""

    def end(self) -> None:
        """Begin no more work; what a thread has begun may last, and nobody waits for it."""
        if not self._over:
            self._over = True
            threading.Thread(target=self.stop, daemon=True).start()

    def run(self, reactor: Any, work: Callable[..., Result], *args: Any) -> Deferred[Result]:
        """Have a thread do something that blocks. Fails with RuntimeError where no thread can begin."""
        try:
            done: Deferred[Result] = deferToThreadPool(reactor, self, work, *args)
        except RuntimeError:
            self._keep_those_alive()
            return fail()
        return done.addBoth(self._ended)

    def _ended(self, result: Any) -> Any:
        if not self._over:
            # Where work is left a thread goes on with that, and ends behind it, however often it was told to.
            self.stopAWorker()
            self._keep_those_alive()
        return result

    def _keep_those_alive(self) -> None:
        """Forget the others: Twisted keeps those as well that have ended, or were never begun."""
        self.threads = [thread for thread in self.threads if thread.is_alive()]


class Threads:
    """
    Small thread pools, one for each kind of work, so that a slow one does not hold up the others.

    Derived keys are kept, under a hash of what they were made from, because PBKDF2 takes a millisecond.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._names = DaemonPool(0, 4, "names")
        self._keys = DaemonPool(0, 2, "keys")
        self._queries = DaemonPool(0, 4, "queries")
        self._derived: OrderedDict[bytes, bytes] = OrderedDict()

    def start(self) -> None:
        """Be ready; threads are started when there is work."""
        for pool in (self._names, self._keys, self._queries):
            pool.start()

    def stop(self) -> None:
        """Begin no more work. What a thread has begun may last; neither the reactor nor the process waits."""
        for pool in (self._names, self._keys, self._queries):
            pool.end()

    def resolve(self, look_up: Callable[..., Result], *args: Any) -> Deferred[Result]:
        """Run a name look-up."""
        return self._names.run(self._reactor, look_up, *args)

    def query(self, ask: Callable[..., Result], *args: Any) -> Deferred[Result]:
        """Run a side query."""
        return self._queries.run(self._reactor, ask, *args)

    async def derive(self, password: bytes, salt: bytes, iterations: int) -> bytes:
        """Give SCRAM's SaltedPassword: PBKDF2 with HMAC-SHA-256 (RFC 5802, Hi())."""
        work = b"%d:%d:" % (iterations, len(salt)) + salt + password
        known = hashlib.sha256(work).digest()
        if known in self._derived:
            self._derived.move_to_end(known)
            return self._derived[known]
        key = await self._keys.run(self._reactor, hashlib.pbkdf2_hmac, "sha256", password, salt, iterations)
        self._derived[known] = key
        if len(self._derived) > _KEYS_KEPT:
            self._derived.popitem(last=False)
        return key
