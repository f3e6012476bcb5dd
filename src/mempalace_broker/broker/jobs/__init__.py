"""The job API of mempalace's own daemon: what its hooks and its commands with `--daemon` save through."""
