"""The bridge: the one process of a container that keeps the way to the host's broker open. See app and tunnel."""
