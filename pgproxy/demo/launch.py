"""
Becomes another program that dies with its parent; run as a script, by its path, never imported.

`python launch.py PARENT_PID SIGNAL UID GID PROGRAM [ARGUMENT...]` drops to UID and GID (-1 keeps them), asks
the kernel for SIGNAL at the parent's death (prctl(2), PR_SET_PDEATHSIG) and execs PROGRAM in its place.

It is a program and no `preexec_fn`: between fork and exec of a process with threads no Python code is safe.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, death_signal: int, uid: int, gid: int, program: list[str]) -> None:
    """Drop root where asked to, tie this process to `parent`, become `program`. Does not return."""
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    # The kernel forgets the signal at a change of user, so this comes after it; it survives exec.
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, death_signal) != 0:
        sys.exit(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:
        sys.exit(f"the parent process {parent} has gone")
    try:
        os.execv(program[0], program)
    except OSError as error:
        sys.exit(f"cannot run {program[0]}: {error.strerror}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
