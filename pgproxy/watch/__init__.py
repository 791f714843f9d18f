"""Watches the hosts of a target: where they are, and which of them is the writer."""
