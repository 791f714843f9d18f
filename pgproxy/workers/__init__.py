"""
Several processes that carry clients, as one proxy: a supervisor and its workers.

- `supervisor`: starts, reloads and stops the workers, in order. `post`: the place of one, `line`: the way to
  it; `sockets`: what they listen on; `bereft`: the servers that a dead one has left.
- `worker`: the proxy as it is in one process, but for what it shares; `seat`: its end of the line.
- `messages`: what the two tell each other. `share`: what of a configuration is each worker's.
- `arbiter`: who may have how many servers; it decides, `budgets` performs. `figures`: all workers' together.
"""
