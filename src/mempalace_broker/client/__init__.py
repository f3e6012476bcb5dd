"""How a client finds, dials, greets and, if need be, starts the broker. Blocking, standard library only."""
