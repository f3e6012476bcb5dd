"""The broker's TCP listener: where to bind, whom to let in, whom to slow down."""
