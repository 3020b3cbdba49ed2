"""Runs a command that is killed as soon as the process that started it ends, however that ends.

`python ends_with_parent.py PARENT COMMAND ...`, with the id of the starting process. On Linux a process can
ask for this, and its wish lasts through exec; elsewhere the command runs without it.
"""

from __future__ import annotations

import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """State the wish, look whether it came too late, and become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        sys.exit("The process that started this command has ended before it.")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
