"""The job API of mempalace's own daemon, through which its hooks and its commands with `--daemon` save."""
