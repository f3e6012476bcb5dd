"""What `setup` would change in an agent's configuration, decided without IO."""
