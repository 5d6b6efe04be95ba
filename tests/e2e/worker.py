"""A daemon's state in a process of its own, to be killed: takes the steps of `feed.steps` and says what is
acknowledged.

python worker.py FOLDER COUNT SNAPSHOT_EVERY
"""

from __future__ import annotations

import select
import sys

import msgspec

from forecastd.daemon.batch import Reply
from forecastd.daemon.disk import Failed
from forecastd.daemon.keeper import CannotOpen, Keeper
from forecastd.daemon.snapshot import capture
from forecastd.tests.feed import NOW, model, settings, steps


def main(folder: str, count: int, every: int) -> int:
    keeper = Keeper.open(msgspec.structs.replace(settings(), state=folder), model(), NOW)
    journal, done = keeper._journal, keeper._journal.step
    print("began", done, flush=True)
    for number, (batch, now) in enumerate(steps(count, first=done), done + 1):
        keeper.append(batch, now, keeper.pipeline.step(batch, now), [Reply(b"p", ack=number)], 0.0)
        if number % every == 0 and journal._copy is None:
            journal.keep(capture(keeper.pipeline, journal.step))
        # by turns a commit has one step or several
        if number % 4:
            select.select([keeper.fileno()], [], [], 10.0)
        say(keeper.durable())
    say(keeper.close())
    print("done", flush=True)
    return 0


def say(replies: list[Reply]) -> None:
    for reply in replies:
        print("ack", reply.ack, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
    except (Failed, CannotOpen) as failure:
        print("failed", failure, flush=True)
        sys.exit(1)
