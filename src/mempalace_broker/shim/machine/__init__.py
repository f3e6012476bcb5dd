"""The shim's decisions: every request of the agent is answered exactly once. No IO, no clock, no randomness."""
