"""
Where the hosts of a target are: from a list, DNS, Aurora, the RDS API or Patroni.

- `found`: what a look gives, or says it can't give. `sources`: from the configuration to a `Source`.
- `pacing`: one look at a time, not too often, within its time.
- `fixed`; `dns`, with `exchange` (asks name servers), `records` (reads what they say) and `system`
  (resolv.conf, /etc/hosts); `aurora`; `rds`; `patroni`, with `http` and `members` (reads what it says).

Whatever a source says about roles is a hint: the watcher asks each host itself.
"""

from pgproxy.watch.discovery.found import DiscoveryFailed, Found, FoundHost
from pgproxy.watch.discovery.sources import Source, source_for

__all__ = ["source_for", "Source", "Found", "FoundHost", "DiscoveryFailed"]
