"""Names what a figure depends on: the machine, the versions and the command."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from pgproxy.twin import twin


def head(command: str, postgresql: str, pgbench: Path, pgbouncer: Path | None) -> dict[str, str]:
    """Describe a run, by name, in the order to print it in."""
    return {
        **surroundings(),
        "pgbouncer": _first_line(pgbouncer) if pgbouncer else "not installed",
        "PostgreSQL": postgresql,
        "pgbench": _first_line(pgbench),
        "command": command,
    }


def surroundings() -> dict[str, str]:
    """Describe the machine and what pgproxy runs on, by name."""
    load = os.getloadavg()[0]
    return {
        "machine": f"{_cpu()}, {cores()} cores, Linux {platform.release()}, load {load:.1f} at the start",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "Twisted": version("Twisted"),
        "pgproxy": f"{version('pgproxy')}, {_twin()}",
    }


def cores() -> int:
    """Return how many cores we may use."""
    return len(os.sched_getaffinity(0))


def _cpu() -> str:
    """Read the processor's name, family and model; not every architecture tells them (proc_cpuinfo(5))."""
    first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    told = {
        name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())
    }
    if "model name" not in told:
        return platform.machine()
    # In a virtual machine the name alone may be that of ten years of processors.
    return f"{told['model name']} (family {told.get('cpu family', '?')}, model {told.get('model', '?')})"


def _first_line(program: Path) -> str:
    """Ask a program for its version."""
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return answer.stdout.partition("\n")[0].strip() or "unknown"


def _twin() -> str:
    if twin is None:
        return "without its compiled twin"
    return f"with its compiled twin, {'with' if twin.look()['ring'] else 'without'} io_uring"
