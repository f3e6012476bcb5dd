"""Decisions without IO: bytes and events in, events and commands out. No clock, no randomness, no sockets."""
