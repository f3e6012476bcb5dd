"""What the operating system does for us: clock, files, locks, processes. Blocking, standard library only."""
