"""Blocking effects, standard library only: files, locks, processes."""
