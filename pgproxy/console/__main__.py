"""`python -m pgproxy.console` prints docs/console.md."""

from pgproxy.console.reference import markdown

print(markdown(), end="")
