"""Programs of the devbox: dot-watch, studio-expose, pi-devbox image.

    dotwatch/   dot-watch: draw a Graphviz file at every save
    expose/     studio-expose: relay the container's outward address to pi-studio on its loopback
    image/      pi-devbox image: decide which images to build, from what, under which tags
    home/       what the image's entry point brings into the home directory
    cli, root   the command pi-devbox
    start       how a command starts
    outcome     how they print and end
    errors      what stops them, and their exit codes

These four don't import each other. In each of them the decisions are pure, and input and output are thin layers.
"""

__version__ = "0.1.0"
