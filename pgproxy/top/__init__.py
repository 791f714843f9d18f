"""
`pgproxy top`: what one pgproxy is doing now, on a terminal, by what its console shows.

- `asking`: the console, asked for all at once. `picture`: what its tables come to, and the rates from one
  look to the next. `layout`: what of it has room, as text that can do nothing to a terminal.
- `drawing`: lines of it, by rich. `screen`: the terminal while it is ours. `rounds`: again and again.
  `command`: the command line.

Nothing here is in the proxy's process, and only `drawing` imports rich, when it is called.
"""
