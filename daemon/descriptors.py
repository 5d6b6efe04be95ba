"""How many connections the operating system lets a process have, besides the files it needs itself."""

from __future__ import annotations

import os
import resource

#: Descriptors kept for what opens files for a moment: snapshots, listings, a further log.
RESERVE = 12


def spare(wanted: int) -> int:
    """How many connections there may be, at most `wanted`, once this process has open what it needs; at least one.

    The soft limit of the process is raised for that as far as the hard one lets it be.
    """
    here = len(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = here + RESERVE + wanted
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - here - RESERVE))
