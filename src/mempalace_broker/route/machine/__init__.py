"""The decisions of the routes: who may start a broker, when to look after a bridge, what ssh's failures mean."""
