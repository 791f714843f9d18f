"""
Rotates a secret as the rotation functions of AWS do: create, set, test, finish.

Documentation: AWS Secrets Manager User Guide, "Lambda rotation functions" and "Rotation strategies".
"""

import json
import secrets
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import sql

_CLONE = "_clone"


class Rotation:
    """
    One rotation of a secret, by steps. `admin` gives a connection that may alter roles.

    `login` proves that a user and a password work; where the secret alternates between two users, it is the
    other one's turn each time.
    """

    def __init__(
        self,
        client: Any,
        secret: str,
        admin: Callable[[], psycopg.Connection[Any]],
        login: Callable[[str, str], None],
        alternating: bool = False,
    ) -> None:
        self._client = client
        self._secret = secret
        self._admin = admin
        self._login = login
        self._alternating = alternating

    def steps(self) -> list[Callable[[], None]]:
        """Give the four steps, in order."""
        return [self.create, self.set, self.test, self.finish]

    def rotate(self) -> None:
        """Do all of it."""
        for step in self.steps():
            step()

    def create(self) -> None:
        """Make a new password, and put it into the secret as AWSPENDING."""
        values = self._values("AWSCURRENT")
        if self._alternating:
            values["username"] = _other(values["username"])
        values["password"] = secrets.token_urlsafe(24)
        self._client.put_secret_value(
            SecretId=self._secret, SecretString=json.dumps(values), VersionStages=["AWSPENDING"]
        )

    def set(self) -> None:
        """Have the server take it; from here on the old password doesn't work there."""
        values = self._values("AWSPENDING")
        with self._admin() as connection:
            statement = sql.SQL("alter role {} password {}")
            connection.execute(statement.format(sql.Identifier(values["username"]), values["password"]))

    def test(self) -> None:
        """Log in with it."""
        values = self._values("AWSPENDING")
        self._login(values["username"], values["password"])

    def finish(self) -> None:
        """Make it AWSCURRENT; what was that becomes AWSPREVIOUS."""
        versions = self._client.describe_secret(SecretId=self._secret)["VersionIdsToStages"]
        (current,) = (version for version, stages in versions.items() if "AWSCURRENT" in stages)
        (pending,) = (version for version, stages in versions.items() if "AWSPENDING" in stages)
        self._client.update_secret_version_stage(
            SecretId=self._secret,
            VersionStage="AWSCURRENT",
            MoveToVersionId=pending,
            RemoveFromVersionId=current,
        )

    def _values(self, stage: str) -> dict[str, str]:
        answer = self._client.get_secret_value(SecretId=self._secret, VersionStage=stage)
        values: dict[str, str] = json.loads(answer["SecretString"])
        return values


def _other(user: str) -> str:
    return user.removesuffix(_CLONE) if user.endswith(_CLONE) else user + _CLONE
