"""A daemon's state in a process of its own, to be killed: takes the steps of `feed.steps` and says what is
acknowledged.

python worker.py FOLDER COUNT SNAPSHOT_EVERY
"""

from __future__ import annotations

import select
import sys

import msgspec

from forecastd.daemon import database
from forecastd.daemon.batch import Reply
from forecastd.daemon.disk import Failed
from forecastd.daemon.keeper import CannotOpen, Keeper
from forecastd.daemon.snapshot import capture
from forecastd.tests.feed import NOW, model, settings, steps


def main(folder: str, count: int, every: int) -> int:
    # what is no longer needed is forgotten at once, so that a run has that in it, too
    database.TIDY_EVERY = 4
    limits = msgspec.structs.replace(settings().limits, journal_s=0.5)
    keeper = Keeper.open(msgspec.structs.replace(settings(), state=folder, limits=limits), model(), NOW)
    journal, done = keeper._journal, keeper._journal.step
    tell(f"began {done}")
    for number, (batch, now) in enumerate(steps(count, first=done), done + 1):
        keeper.append(batch, now, keeper.pipeline.step(batch, now), [Reply(b"p", ack=number)], 0.0)
        if number % every == 0 and journal._copy is None:
            journal.keep(capture(keeper.pipeline, journal.step))
        # by turns a commit has one step or several
        if number % 4:
            select.select([keeper.fileno()], [], [], 10.0)
        say(keeper.durable())
    say(keeper.close())
    tell("done")
    return 0


def say(replies: list[Reply]) -> None:
    for reply in replies:
        tell(f"ack {reply.ack}")


def tell(line: str) -> None:
    """In one write, whatever the buffering."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
    except (Failed, CannotOpen) as failure:
        tell(f"failed {failure}")
        sys.exit(1)
