"""
Sends metrics to CloudWatch, or writes them to the log: one period at a time, and never a queue of them.

What can't be sent before the next is due is dropped and counted, and that count is a metric, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from structlog.typing import FilteringBoundLogger
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from pgproxy.aws.client import AwsError, Client
from pgproxy.aws.metrics import Datum, as_embedded, as_metric_data, data
from pgproxy.aws.threads import AwsThreads
from pgproxy.config.aws import AwsCloudWatch


class CloudWatch:
    """The metrics of this process. `figures` gives what there is to count, `wall` the seconds since 1970."""

    def __init__(
        self,
        client: Client,
        threads: AwsThreads,
        clock: Any,
        wall: Callable[[], float],
        figures: Callable[[], Mapping[str, Any]],
        log: FilteringBoundLogger,
    ) -> None:
        self._client = client
        self._threads = threads
        self._wall = wall
        self._figures = figures
        self._log = log
        self._options = AwsCloudWatch()
        self._looping = LoopingCall(self._turn)
        self._looping.clock = clock
        self._before: Mapping[str, Any] = {}
        self._sending = False
        self._failing = False
        self._started = False
        self.dropped = 0
        """Metrics that nobody has got."""

    def configure(self, options: AwsCloudWatch) -> None:
        """Take other options."""
        changed = options != self._options
        self._options = options
        if changed and self._started:
            self.stop()
            self.start()

    def start(self) -> None:
        """Begin: what is sent first is what has happened from now on."""
        self._started = True
        if self._options.send != "off":
            self._before = self._figures()
            self._looping.start(self._options.interval, now=False)

    def stop(self) -> None:
        """Send no more."""
        self._started = False
        if self._looping.running:
            self._looping.stop()

    def _turn(self) -> None:
        # An exception would end the looping.
        try:
            now = self._figures()
            found = data(now, self._before, self._options.proxy_name)
            self._before = now
            self._tell(found)
        except Exception:
            self._defect(Failure())

    def _tell(self, found: list[Datum]) -> None:
        timestamp = self._wall()
        if self._options.send == "emf":
            for line in as_embedded(found, self._options.namespace, timestamp):
                self._log.info("metrics", **line)
        elif self._sending:
            self._drop(len(found), "the ones before are still on their way")
        else:
            self._sending = True
            sent = Deferred.fromCoroutine(self._send(found, timestamp))
            sent.addErrback(self._defect).addBoth(self._sent)

    async def _send(self, found: list[Datum], timestamp: float) -> None:
        left = len(found)
        try:
            for batch in as_metric_data(found, timestamp):
                await self._threads.call(self._client.put_metrics, self._options.namespace, batch)
                left -= len(batch)
        except AwsError as error:
            self._drop(left, str(error))
        else:
            if self._failing:
                self._failing = False
                self._log.info("metrics_sent_again", dropped=self.dropped)

    def _sent(self, _result: object) -> None:
        self._sending = False

    def _drop(self, number: int, why: str) -> None:
        self.dropped += number
        if not self._failing:
            self._failing = True
            self._log.warning("metrics_dropped", number=number, why=why)

    def _defect(self, failure: Failure) -> None:
        self._log.error("defect", failure=failure.getTraceback())
