"""The bridge: the one process of a container that keeps a connection to the host's broker open (app, tunnel)."""
