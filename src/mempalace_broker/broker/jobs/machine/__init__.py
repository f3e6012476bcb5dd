"""Decides the state of jobs, without IO."""
