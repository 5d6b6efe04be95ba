"""python -m forecastd.tests.sim SEED [COUNT]: worlds from a seed on; the story of a single one."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter

from forecastd.tests.sim.world import Broken, World


def main(first: int, number: int) -> int:
    # what the daemon warns of is what the worlds do to it
    logging.disable(logging.CRITICAL)
    seen: Counter[str] = Counter()
    began = time.monotonic()
    for seed in range(first, first + number):
        try:
            world = World(seed).run()
        except Broken as broken:
            print(broken)
            return 1
        seen += world.seen
        if number == 1:
            print(*world.log, sep="\n")
        elif (seed - first) % 500 == 499:
            print(f"{seed - first + 1} worlds, {time.monotonic() - began:.0f} s", flush=True)
    print(*(f"{times:8d} {what}" for what, times in seen.most_common()), sep="\n")
    print(f"{number} worlds clean, from seed {first}, in {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1))
