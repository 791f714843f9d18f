"""What is served over HTTP."""

from __future__ import annotations

from pathlib import Path

from attrs import field, frozen

from pgproxy.config.kinds import Address, Addresses, File, Switch, option


@frozen(kw_only=True)
class Http:
    """
    What is served over HTTP: the status page at /, Prometheus metrics at /metrics.

    It takes the extra `pgproxy[metrics]`.

    On loopback addresses everybody on this machine may read it; on others a token is needed, and somebody in
    front who speaks TLS.
    """

    listen: tuple[Address, ...] = field(
        default=(),
        metadata=option(
            Addresses(may_be_none=True), "Where HTTP is served, 127.0.0.1:9127 for example; [] for nowhere."
        ),
    )
    token_file: Path | None = field(
        default=None,
        metadata=option(
            File(),
            "A file with the token that requests have to bear (`Authorization: Bearer …`, or in a browser as "
            "the password of any user), in its first line. Read again on SIGHUP.",
        ),
    )
    page: bool = field(
        default=True,
        metadata=option(Switch(), "Whether the status page is served, see docs/page.md."),
    )
