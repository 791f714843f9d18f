"""What is served over HTTP, where the configuration says so; where it doesn't, nothing of it is imported."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from structlog.typing import FilteringBoundLogger

from pgproxy.config import Config
from pgproxy.console.company import Company
from pgproxy.console.desk import Desk
from pgproxy.link.materials import Materials

if TYPE_CHECKING:
    from pgproxy.observe.http import Page, Site
    from pgproxy.page.watch import Watch


class Serving:
    """Metrics and the status page. `figures` gives those of all processes, `company` what else is shown."""

    def __init__(
        self,
        reactor: Any,
        materials: Callable[[], Materials],
        figures: Callable[[], Awaitable[dict[str, Any]]],
        company: Company,
        log: FilteringBoundLogger,
    ) -> None:
        self._reactor = reactor
        self._materials = materials
        self._figures = figures
        self._company = company
        self._log = log
        self._ports: list[Any] = []
        self._token_before = b""
        """The last there was, where other machines reach what is listened on."""
        self._site: Site | None = None
        self._watch: Watch | None = None

    def start(self, shared: bool) -> None:
        """Listen, if that is wanted. `shared` is as in `http.serve`. Raises SystemExit where it can't."""
        options = self._config().http
        if not options.listen:
            return
        from pgproxy.observe.http import Root, Site, serve

        pages: dict[bytes, Callable[[], Awaitable[Page]]] = {b"/metrics": self._metrics}
        streams: dict[bytes, Callable[[Any], bool]] = {}
        if options.page:
            from pgproxy.page.resource import files
            from pgproxy.page.watch import Watch

            desk = Desk(self._company, self._reactor, self._log)
            self._watch = Watch(self._reactor, self._figures, desk, self._config, self._log)
            pages |= files()
            streams[b"/events"] = self._watch.add
        open_to_others = any(not address.is_loopback for address in options.listen)
        token = self._kept_token if open_to_others else self._token
        self._site = Site(Root(pages, streams, token, self._log))
        try:
            self._ports = serve(self._reactor, options.listen, self._site, shared)
        except OSError as error:
            self._log.critical(
                "cannot_listen",
                address=str(error.filename),
                why=str(error.strerror or error),
                remedy="choose another address in http.listen, or stop what listens there",
            )
            raise SystemExit(1) from error
        if self._watch is not None:
            self._watch.start()

    def _config(self) -> Config:
        return self._materials().config

    def _token(self) -> bytes:
        return self._materials().http_token

    def _kept_token(self) -> bytes:
        """Give the token; a configuration without one is not for what is listened on until a restart."""
        self._token_before = self._token() or self._token_before
        return self._token_before

    async def _metrics(self) -> Page:
        from pgproxy.observe.metrics import page

        return page(await self._figures(), self._config())

    async def stop(self) -> None:
        """Listen no more, and end what is still being served."""
        while self._ports:
            await self._ports.pop().stopListening()
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        if self._site is not None:
            self._site.end()
            self._site = None
