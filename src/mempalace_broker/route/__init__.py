"""How a client finds the broker of a palace and, where none runs, starts it. Standard library only.

    finder             chooses the route: here, over ssh, over TCP, or direct
    plan               the routes to a palace that another kernel owns, by the container's settings
    unix, ssh, tcp     the three routes; each is an `attempt`, which goes on in steps and never blocks
    start_under_lock   how a hundred clients at once start one daemon
    machine/           election (who may start a broker), the state of a bridge, what ssh's failures mean
    bridge/            the process that holds a container's connection to the host
    ask                one question to a broker, as `status`, `stop` and `doctor` ask it

A container that opens the palace itself ("direct") waits 3.5 s for its lease to settle before it serves: names may take
1.5 s to be seen on the other kernel (lease/machine).
"""
