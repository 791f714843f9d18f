"""
`pgproxy convert`: a PgBouncer configuration in ours, and a note wherever the two don't mean the same.

- `ini`: what PgBouncer's file says, line by line, with what it includes.
- `draft`: what is to be written, and the notes. `keys`: which option of ours a key is. `places`: [databases]
  and [users]. `logins`: how clients prove who they are.
- `writing`: TOML. `command`: the command line.

Documentation: PgBouncer's config.md, 1.25.
"""
