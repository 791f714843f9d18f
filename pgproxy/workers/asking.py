"""Asks workers something, and waits for all of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import DeferredList
from twisted.protocols.amp import Command

from pgproxy.workers.post import Post


async def ask(
    posts: Iterable[Post], command: type[Command], reactor: Any = None, seconds: float | None = None
) -> dict[Post, Any]:
    """
    Ask those that are there; give the answers of those that still were, and within `seconds` of the reactor.

    Without a limit who doesn't answer is ended (`Post.look`), and the question with it.
    """
    asked = {post: post.ask(command) for post in posts if post.ready}
    if seconds is not None:
        for question in asked.values():
            question.addTimeout(seconds, reactor)
    answers = await DeferredList(list(asked.values()), consumeErrors=True)
    return {post: answer for post, (answered, answer) in zip(asked, answers, strict=True) if answered}
