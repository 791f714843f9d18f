"""Who has which server, without I/O."""
