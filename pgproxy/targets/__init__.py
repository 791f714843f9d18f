"""Which host of a target has which role: decided from what the hosts say of themselves, without any I/O."""
