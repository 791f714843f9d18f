"""What the login of an unknown user looks like: what most of the known ones' do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from attrs import frozen

from pgproxy.auth.secrets import SCRAM_ITERATIONS, ScramVerifier, Secret


@frozen
class Looks:
    """What somebody sees who logs in."""

    scram: bool = True
    """Whether method md5 is SCRAM."""
    iterations: int = SCRAM_ITERATIONS


def commonest(secrets: Iterable[Secret]) -> Looks:
    """Say what most of these look like; PostgreSQL's default where there are none."""
    known = list(secrets)
    verifiers = [secret for secret in known if isinstance(secret, ScramVerifier)]
    counts = Counter(secret.iterations for secret in verifiers)
    counts[SCRAM_ITERATIONS] += len(known) - len(verifiers)
    return Looks(2 * len(verifiers) >= len(known), counts.most_common(1)[0][0])
