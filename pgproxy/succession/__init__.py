"""
One process follows another, and a service manager looks on.

- `inherited`: the sockets that a process listens on and has not opened itself: systemd's, or those of the
  process that it follows. `manager`: what systemd is told. `messages`: what two processes tell each other.
- `succession`: a process between the one before it and the one after it. `retiring`: what holds at its end.

Documentation: sd_listen_fds(3), sd_notify(3), systemd.service(5).
"""
