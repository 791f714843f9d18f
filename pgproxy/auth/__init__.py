"""Who are you: both ends of every login method, without I/O."""
