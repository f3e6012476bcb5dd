"""The decisions of the routes: who may start a broker, when a bridge probes its tunnel, what ssh's failures mean."""
