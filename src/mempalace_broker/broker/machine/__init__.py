"""The broker's decisions: what clients and the engine do comes in, effects go out. No IO, no clock, no randomness."""
