"""How a client finds the broker of a palace and, where there is none, starts it. Blocking, standard library only."""
