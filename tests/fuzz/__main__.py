"""python -m forecastd.tests.fuzz wire|configuration SECONDS: bytes that reach where none have been, by atheris.

A finding is written to `crash-…` in the working folder, and replays: `python -m forecastd.tests.fuzz wire crash-…`.
"""

from __future__ import annotations

import sys
from pathlib import Path

SEEDS = {
    "wire": [
        b'\0{"series":"a","value":1.5,"time":1e9,"seq":3,"producer":"plc","epoch":2}',
        b'\1[{"series":"a","value":1},{"series":"b","value":NaN,"seq":4}]',
        b"\2a\n\n71.3",
        b'\2{"columns":1,"series":["a","b"],"seq":1,"time0":1e9,"step":1}\n\n' + bytes(32),
    ],
    "configuration": [
        b'ingest = ["pull+tcp://127.0.0.1:1"]\nhorizon = 3\nkey = "k"\nclients = "c"\n[limits]\nseries = 7\n',
        b'[[client]]\nproducer = "plc"\nkey = "' + b"k" * 40 + b'"\nseries = ["a*"]\nwatch = true\n',
    ],
}


def main(name: str, what: str) -> None:
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed: `make soak` does that; hypothesis goes on by itself in `make test`")
    with atheris.instrument_imports(include=["forecastd", "tomllib"]):
        from forecastd.tests.fuzz import target
    if not what.isdigit():
        target.TARGETS[name](Path(what).read_bytes())
        return
    seeds = Path(".fuzz") / name
    seeds.mkdir(parents=True, exist_ok=True)
    for n, seed in enumerate(SEEDS[name]):
        (seeds / f"seed-{n}").write_bytes(seed)
    atheris.Setup([sys.argv[0], str(seeds), f"-max_total_time={what}", "-max_len=65536"], target.TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:3])
