"""Prints docs/configuration.md: `python -m pgproxy.config`."""

from pgproxy.config.reference import markdown

print(markdown(), end="")
