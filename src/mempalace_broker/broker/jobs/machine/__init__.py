"""What becomes of a job, decided without IO."""
