"""Run a program in a guest, with this process's own standard streams, as `nsenter` does for a container.

    python -I -S attach.py SOCKET JSON          JSON: {"start": argv, "env": {...}, "cwd": "/"}

The descriptors go to whoever holds the guest's line (tests/vm/machine.py); the answer is the exit status.
SIGKILL of this process is SIGKILL for the program in the guest.
"""

import os
import signal
import socket
import sys

with socket.socket(socket.AF_UNIX) as line:
    line.connect(sys.argv[1])
    socket.send_fds(line, [sys.argv[2].encode()], [0, 1, 2])
    for fd in (0, 1, 2):  # now theirs alone: end of input must be seen by one reader, and end of output by ours
        os.close(fd)
    answer = line.recv(64)
status = int(answer or b"-9")
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
    os.kill(os.getpid(), -status)
os._exit(status)
