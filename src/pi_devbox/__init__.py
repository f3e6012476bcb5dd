"""Programs of the devbox image: dot-watch, studio-expose, pi-devbox image.

    dotwatch/   dot-watch: a picture from a Graphviz file at every save
    expose/     studio-expose: a relay from the container's outward address to pi-studio on its loopback
    image/      pi-devbox image: which images to build, from what, under which tags
    outcome     what they print, and how they end

The three know nothing of each other, nor of mempalace_broker but its tree of errors. In each the decisions are pure,
and input and output thin.
"""
