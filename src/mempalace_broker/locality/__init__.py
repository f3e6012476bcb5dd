"""Where this process is, seen from the palace: which kernel, which mounts, whose paths, which process ids."""
