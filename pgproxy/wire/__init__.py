"""Bytes and their meaning: framing, messages, startup packets and errors, without I/O."""
