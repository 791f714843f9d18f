"""What a client has under way and has left in a server, without I/O."""
