"""What two processes say to each other: bytes and values in, bytes and values out. No IO, no clock, no randomness."""
