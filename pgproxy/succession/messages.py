"""What a process and the one that follows it tell each other. Documentation: twisted.protocols.amp."""

from __future__ import annotations

from typing import ClassVar

from twisted.protocols.amp import Boolean, Command, Integer, String


class Serves(Command):
    """The successor serves: the predecessor is to accept nobody any more."""


class Cancel(Command):
    """The successor doesn't know a client that is to be cancelled; does the predecessor?"""

    arguments: ClassVar = [(b"pid", Integer()), (b"secret", String())]
    response: ClassVar = [(b"found", Boolean())]
