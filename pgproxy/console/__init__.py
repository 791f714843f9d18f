"""
The administrators' console: a database that is none, spoken to as any other.

`commands`, `chatter`, `tables`, `columns`, `stats` and `talk` decide, and know no socket and no clock; the
others perform.
"""
