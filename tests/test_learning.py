"""The engine's side of learning against a trainer in the same process, over a real link: what it sends, and what it
takes back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from forecastd.daemon import copied, letter, outgoing
from forecastd.daemon.batch import Batch, Effects, Parcel
from forecastd.daemon.learning import WORTH_SAMPLES, Learning
from forecastd.daemon.letter import Began, Done, Dropped, Hello, Told
from forecastd.daemon.link import Link
from forecastd.daemon.pipeline import Pipeline
from forecastd.daemon.scoreboard import Scoreboard
from forecastd.daemon.settings import Learning as Options
from forecastd.daemon.settings import Settings
from forecastd.daemon.standings import standings
from forecastd.daemon.trainer import TICK_S, Trainer
from forecastd.models.challenger import Challenge
from forecastd.models.learner import FIRST, Learner, Tune
from forecastd.models.lessons import Lessons
from forecastd.models.weights import Weights, digest

from .feed import NOW, model, state
from .patience import until

SETTINGS = Settings(experts=("naive", "ar10", "rnn"), web="", learning=Options(cooldown_s=0.0, cpu_share=1.0))
MODEL = model().weights


class Ear:
    """The supervisor, as far as engine and trainer talk to it."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []
        self.gone = False

    def report(self, **fields: Any) -> None:
        self.said.append(fields)

    def lines(self) -> list[dict[str, Any]]:
        return []


class Nudger(Learner):
    """A learner whose fine-tunes take no time: each moves a copy a little."""

    def tune(self, rows: list[int]) -> list[Tune]:
        tunes = []
        for row in rows:
            self._tuned[row] = int(self.lessons.count(np.array([row]))[0])
            self._given.setdefault(row, self._tuned[row])
            before = self.copies.get(row, self.anchor)
            self.copies[row] = self._models[row] = replace(before, bias=before.bias + np.float32(0.01))
            tunes.append(Tune(row, "tuned", self.copies[row], 1.0, 0.9))
        return tunes


def nudger(anchor: Weights, options: Options) -> Learner:
    return Nudger(anchor, options.every_samples, options.copies, options.series)


class Rig:
    """A pipeline that learns, turned by hand as the engine does it."""

    def __init__(self, folder: Path, settings: Settings = SETTINGS, series: int = 3) -> None:
        self.pipeline, self.plain = Pipeline(settings, MODEL), Pipeline(settings, MODEL)
        self.parent, self.watched = Ear(), list[Any]()
        made = Learning.of(self.pipeline, self.parent, str(folder), self.watched.append)  # type: ignore[arg-type]
        assert made is not None
        self.learning = made
        self.names = [f"s{k}" for k in range(series)]
        self.random = np.random.default_rng(0)
        self.count = 0
        self.links: list[Link] = []
        self.effects: list[Effects] = []

    def step(self, count: int = 1) -> Effects:
        """Samples of all series, also through a pipeline that learns nothing: `plain`."""
        for _ in range(count):
            self.count += 1
            value = np.sin(self.count / 7 + np.arange(len(self.names))) + 0.1 * self.random.normal(size=len(self.names))
            time = np.full(len(value), NOW + self.count)
            batch = Batch(self.names, value, time, [Parcel(0, len(value))])
            effects = self.pipeline.step(batch, NOW + self.count)
            self.plain.step(batch, NOW + self.count)
            self.learning.note(effects)
            self.pipeline.finish()
            self.learning.take(effects)
            self.effects.append(effects)
        return effects

    def link(self) -> Link:
        """A trainer's end, once the engine wants one."""
        if not self.parent.said:
            self.step(WORTH_SAMPLES)
            self.learning.tick()
        self.links.append(Link(self.parent.said[-1]["link"], bind=False))
        return self.links[-1]

    def trainer(self, learner: Callable[[Weights, Options], Learner] = nudger) -> Trainer:
        """One that has been greeted."""
        link = self.link()
        trainer = Trainer(self.pipeline.settings.learning, link, Ear(), learner)  # type: ignore[arg-type]
        trainer.greet()
        until(lambda: (self.learning.hear(), trainer.hear(), trainer.learner)[-1])
        return trainer

    def until(self, trainer: Trainer, condition: Callable[[], Any]) -> Any:
        """Time passes in both until it comes to that."""

        def turn() -> Any:
            self.learning.tick()
            trainer.hear()
            trainer.work()
            self.learning.hear()
            return condition()

        return until(turn)

    def board(self) -> Scoreboard:
        board = standings(self.pipeline, NOW + self.count)
        self.learning.show(board)
        return board

    def close(self) -> None:
        for link in self.links:
            link.close()
        self.learning.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def forecasts(effects: Effects) -> bytes:
    return b"".join(f.mean.tobytes() + f.lower.tobytes() for f in effects.forecasts)


def say(link: Link, said: letter.Letter, *body: bytes) -> None:
    until(lambda: link.send(letter.encode(said, *body)))


# ---- when


def test_who_is_not_to_learn_or_cannot_does_not(tmp_path: Path) -> None:
    """Without the setting, the expert, a folder, or with the tutorial's model."""
    without = msgspec.structs.replace

    def made(settings: Settings, weights: Weights | None = MODEL, folder: str = str(tmp_path)) -> Learning | None:
        return Learning.of(Pipeline(settings, weights), Ear(), folder, lambda _: None)  # type: ignore[arg-type]

    assert made(SETTINGS)
    assert made(without(SETTINGS, finetune=False)) is None
    assert made(without(SETTINGS, experts=("naive",)), None) is None
    assert made(SETTINGS, folder="") is None
    assert made(SETTINGS, replace(MODEL, output="value")) is None


def test_a_trainer_is_wanted_once_there_is_something_to_learn(rig: Rig) -> None:
    """Once, and at an address in the folder it was given."""
    rig.step(WORTH_SAMPLES - 1)
    rig.learning.tick()
    assert (rig.parent.said, rig.watched) == ([], [])
    rig.step()
    rig.learning.tick()
    rig.learning.tick()
    (said,) = rig.parent.said
    assert said["want"] == "trainer"
    assert said["link"].endswith(f"/{os.getpid()}")
    assert rig.watched == [rig.learning.socket]


# ---- what is sent


def test_the_trainer_learns_what_the_engine_took_in_from_the_first_sample_on(rig: Rig) -> None:
    """Also what came before it was there: its windows and targets are those of the lessons themselves."""
    trainer = rig.trainer()
    rig.step(200)
    learner = trainer.learner
    assert learner is not None
    own = Lessons(MODEL.window, 10)
    for effects in rig.effects:
        for lesson in effects.lessons:
            own.take(lesson)
    rows = np.arange(3)
    rig.until(trainer, lambda: min(learner.lessons.count(rows)) == rig.count)
    for row in range(3):
        ours, theirs = own.windows(row, 1000), learner.lessons.windows(row, 1000)
        assert len(ours.targets) > 200
        assert np.array_equal(ours.inputs, theirs.inputs)
        assert np.array_equal(ours.targets, theirs.targets)


def test_batches_of_many_rounds_are_taught_in_their_order(rig: Rig) -> None:
    """And single samples, and those of gaps that were bridged."""
    trainer = rig.trainer()
    learner = trainer.learner
    assert learner is not None
    own = Lessons(MODEL.window, 10)
    names, values = ["s0", "s1", "s0", "s0", "s2", "s1"], np.arange(6.0)
    for k in range(40):
        batch = Batch(names, values + k, np.full(6, np.nan), [Parcel(0, 6)])
        effects = rig.pipeline.step(batch, NOW + rig.count + k)
        rig.pipeline.finish()
        rig.learning.take(effects)
        rig.effects.append(effects)
    for time in NOW + rig.count + np.array([60.0, 63.0]):
        batch = Batch(["s2"], np.ones(1), np.array([time]), [Parcel(0, 1)])
        effects = rig.pipeline.step(batch, NOW + rig.count + 64)
        rig.pipeline.finish()
        rig.learning.take(effects)
        rig.effects.append(effects)
    for effects in rig.effects:
        for lesson in effects.lessons:
            own.take(lesson)
    rows = np.arange(3)
    rig.until(trainer, lambda: np.array_equal(learner.lessons.count(rows), own.count(rows)))
    for row in range(3):
        ours, theirs = own.windows(row, 1000), learner.lessons.windows(row, 1000)
        assert np.array_equal(ours.inputs, theirs.inputs)
        assert np.array_equal(ours.targets, theirs.targets)


def test_what_a_stuck_trainer_does_not_take_is_kept_up_to_a_bound_and_then_dropped(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest first; each sample that was lost is counted, and the engine never waits."""
    monkeypatch.setattr(outgoing, "LETTER_SAMPLES", 30)
    monkeypatch.setattr(outgoing, "KEPT_BYTES_MAX", 20_000)
    rig.trainer()
    for _ in range(300):
        rig.step(10)
    dropped = rig.board().counters["lessons_dropped"]
    assert 5_000 < dropped < 3 * rig.count
    assert rig.learning._outgoing._bytes <= 20_000


def test_a_trainer_that_comes_after_another_gets_the_copies_there_are(rig: Rig) -> None:
    """And the shared model; what the first one had not read is no concern of its own."""
    first = rig.trainer()
    rig.step(FIRST)
    rig.until(first, lambda: rig.learning.outcomes.get("tuned", 0) >= 3)
    rig.step()
    expert = rig.pipeline.recurrent
    assert expert is not None
    copies = {row: digest(weights) for row, weights in expert.copies.weights.items()}
    assert len(copies) == 3
    rig.links.pop().close()
    rig.learning.told({"lost": "trainer", "hung": False, "again_s": 0.1})
    rig.step(5)
    second = rig.trainer()
    learner = second.learner
    assert learner is not None
    until(lambda: (second.hear(), len(learner.copies) == 3)[1])
    assert {row: digest(weights) for row, weights in learner.copies.items()} == copies
    assert digest(learner.anchor) == digest(MODEL)


def test_a_trainer_gets_however_many_copies_there_are(rig: Rig) -> None:
    """More than messages may wait on the link."""
    rig.names = [f"s{k}" for k in range(200)]
    rig.step(WORTH_SAMPLES)
    for row in range(200):
        rig.pipeline.adopt(row, model(row).weights)
    rig.learning.tick()
    learner = rig.trainer().learner
    assert learner is not None
    assert {row: digest(own) for row, own in learner.copies.items()} == {
        row: digest(model(row).weights) for row in range(200)
    }


def test_after_a_job_the_trainer_rests_and_goes_on_by_itself(rig: Rig) -> None:
    """For as long as keeps it within its share, and not until it hears something."""
    trainer = rig.trainer()
    trainer.quota.share = 1e-4
    rig.step(FIRST)
    rig.learning.tick()
    wait_s = until(lambda: (trainer.hear(), trainer.work())[1] > TICK_S and trainer.work())
    assert trainer.quota.wait_s(trainer._clock()) == pytest.approx(wait_s, abs=1.0)
    trainer.quota.share = 1.0
    trainer.quota.spend(0.0, 0.0, trainer._clock())
    assert trainer.work() == TICK_S


def test_another_shared_model_is_what_copies_are_pulled_towards_from_then_on(rig: Rig) -> None:
    """The trainer begins with it, and with the copies there are."""
    trainer = rig.trainer()
    rig.step(FIRST)
    rig.until(trainer, lambda: rig.learning.outcomes.get("tuned", 0) >= 3)
    rig.step()
    champion = model(5).weights
    assert rig.pipeline.recurrent
    rig.pipeline.recurrent.use(champion)
    rig.until(trainer, lambda: trainer.learner and digest(trainer.learner.anchor) == digest(champion))
    rig.until(trainer, lambda: trainer.learner and len(trainer.learner.copies) == 3)


# ---- what is taken back


def test_a_copy_is_adopted_between_two_batches_and_kept_with_the_next(rig: Rig) -> None:
    """It is an event, a count and a gauge."""
    trainer = rig.trainer()
    rig.step(FIRST)
    rig.until(trainer, lambda: rig.learning.outcomes.get("tuned", 0) >= 3)
    effects = rig.step()
    assert set(effects.copies) == {0, 1, 2}
    assert not rig.step().copies
    told = [event for event in effects.events if event["event"] == "finetune"]
    assert {event["series"] for event in told} == {"s0", "s1", "s2"}
    assert {key: told[0][key] for key in ("outcome", "before", "after", "cause")} == {
        "outcome": "tuned",
        "before": 1.0,
        "after": 0.9,
        "cause": "samples",
    }
    board = rig.board()
    assert board.counters["copies"] == 3
    assert board.finetunes == {"tuned": 3}
    assert [event["series"] for event in board.events] == ["s0", "s1", "s2"]
    until(lambda: (rig.learning.hear(), sum(rig.board().finetune_counts))[1])


def test_one_copy_changes_between_two_batches(rig: Rig) -> None:
    """The others follow with the next."""
    link = rig.link()
    say(link, Hello(1))
    rig.step(5)
    until(lambda: (rig.learning.hear(), list(link))[1])
    for row in [0, 1, 2]:
        say(link, Told(row, "tuned", 1.0, 0.9, "samples"), copied.packed(MODEL))
    heard = []
    while sum(heard) < 3:
        until(lambda: rig.learning.socket.poll(0))
        before = rig.learning.outcomes.get("tuned", 0)
        rig.learning.hear()
        heard.append(rig.learning.outcomes["tuned"] - before)
    assert heard == [1, 1, 1]


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_fault_22_weights_that_are_not_finite_change_nothing(rig: Rig, number: float) -> None:
    """Counted by name; the next good ones are taken."""
    link = rig.link()
    bad = replace(MODEL, kernel=np.full_like(MODEL.kernel, number))
    say(link, Told(1, "tuned", 1.0, 0.9, "samples"), copied.packed(bad))
    until(lambda: (rig.learning.hear(), rig.learning.outcomes)[1])
    assert rig.learning.outcomes == {"nonfinite": 1}
    for _ in range(50):
        assert not rig.step().copies
    assert state(rig.pipeline) == state(rig.plain)
    say(link, Told(1, "tuned", 1.0, 0.9, "samples"), copied.packed(MODEL))
    until(lambda: (rig.learning.hear(), len(rig.learning.outcomes) == 2)[1])
    assert set(rig.step().copies) == {1}


@pytest.mark.parametrize("body", [b"", b"1234", copied.packed(MODEL)[:-4], copied.packed(MODEL) + bytes(4)])
def test_fault_22_weights_of_another_size_change_nothing(rig: Rig, body: bytes) -> None:
    """Counted as failed."""
    link = rig.link()
    say(link, Told(1, "tuned", 1.0, 0.9, "samples"), body)
    until(lambda: (rig.learning.hear(), rig.learning.outcomes)[1])
    assert rig.learning.outcomes == {"failed": 1}
    assert not rig.step().copies


@pytest.mark.parametrize("frames", [[b""], [b"\x81\xa4type\xa3foo"], [b"\xff\xff"], [b"{}", b"x"]])
def test_what_is_no_letter_is_passed_over(rig: Rig, frames: list[bytes]) -> None:
    """And what comes after it is heard."""
    link = rig.link()
    until(lambda: link.send(frames))
    say(link, Told(1, "rejected", 1.0, 2.0, "samples"))
    until(lambda: (rig.learning.hear(), rig.learning.outcomes)[1])
    assert rig.learning.outcomes == {"rejected": 1}


def test_a_row_that_there_is_not_is_passed_over(rig: Rig) -> None:
    """A trainer may be wrong about anything."""
    link = rig.link()
    for row in (99, -1):
        say(link, Told(row, "tuned", 1.0, 0.9, "samples"), copied.packed(MODEL))
        say(link, Dropped([row]))
    say(link, Told(1, "rejected", 1.0, 2.0, "samples"))
    until(lambda: (rig.learning.hear(), rig.learning.outcomes.get("rejected"))[1])
    assert rig.learning.outcomes == {"rejected": 1}
    assert not rig.step().copies


@pytest.mark.parametrize("hung, outcome", [(True, "timeout"), (False, "failed")])
def test_faults_20_21_what_a_lost_trainer_was_working_on_is_counted(rig: Rig, hung: bool, outcome: str) -> None:
    """Each row it had not told of; what it had done by then is not."""
    link = rig.link()
    say(link, Began([0, 1, 2]))
    say(link, Told(1, "rejected", 1.0, 2.0, "samples"))
    until(lambda: (rig.learning.hear(), rig.learning.outcomes)[1])
    rig.learning.told({"lost": "trainer", "hung": hung, "again_s": 0.1})
    rig.learning.told({"lost": "trainer", "hung": hung, "again_s": 0.1})
    assert rig.learning.outcomes == {"rejected": 1, outcome: 2}


def test_a_trainer_that_is_lost_while_it_rests_has_failed_nothing(rig: Rig) -> None:
    """Only a job can fail."""
    link = rig.link()
    say(link, Began([0]))
    say(link, Done(0.1, 0.1))
    until(lambda: (rig.learning.hear(), rig.learning.durations.sum)[1])
    rig.learning.told({"lost": "trainer", "hung": True, "again_s": 0.1})
    assert rig.learning.outcomes == {}


def test_a_copy_that_is_not_worth_having_is_taken_back(rig: Rig) -> None:
    """The trainer says so, hearing what it gains; then all is as it was."""
    trainer = rig.trainer()
    rig.step(FIRST)
    rig.until(trainer, lambda: rig.learning.outcomes.get("tuned", 0) >= 3)
    rig.step(2)
    assert rig.board().counters["copies"] == 3
    say(trainer.link, Dropped([0, 2]))
    until(lambda: (rig.learning.hear(), rig.learning.outcomes.get("dropped"))[1] == 2)
    assert rig.step().copies == {0: None, 2: None}
    assert rig.board().counters["copies"] == 1


def test_the_trainer_hears_what_its_copies_gain(rig: Rig) -> None:
    """Once a second, of each row that has one."""
    heard: list[dict[int, float]] = []

    class Listening(Nudger):
        def hear(self, gains: Any) -> None:
            heard.append(dict(gains))

    trainer = rig.trainer(lambda anchor, options: Listening(anchor, 64, 8, 8))
    rig.step(FIRST)
    rig.until(trainer, lambda: rig.learning.outcomes.get("tuned", 0) >= 3)
    rig.step(30)
    rig.until(trainer, lambda: heard and set(heard[-1]) == {0, 1, 2})


def test_the_same_news_of_a_series_is_not_told_again_and_again(rig: Rig) -> None:
    """It is counted each time; told anew when it is other news, or after a while."""
    link = rig.link()
    for outcome in ("rejected", "rejected", "tuned", "rejected"):
        body = [copied.packed(MODEL)] if outcome == "tuned" else []
        say(link, Told(1, outcome, 1.0, 2.0, "samples"), *body)
    until(lambda: (rig.learning.hear(), sum(rig.learning.outcomes.values()) == 4)[1])
    assert rig.learning.outcomes == {"rejected": 3, "tuned": 1}
    assert [event["outcome"] for event in rig.learning.events] == ["rejected", "tuned", "rejected"]


def test_what_is_asked_for_is_tuned_at_once(rig: Rig) -> None:
    """Whatever the number of new samples."""
    with pytest.raises(ValueError, match="no trainer yet"):
        rig.learning.order(())
    trainer = rig.trainer()
    rig.step(FIRST)
    rig.until(trainer, lambda: rig.learning.outcomes.get("tuned", 0) >= 3)
    rig.step(2)
    with pytest.raises(ValueError, match="no series is called 'foo'"):
        rig.learning.order(("s1", "foo"))
    assert "1 series" in rig.learning.order(("s1",))
    rig.until(trainer, lambda: rig.learning.outcomes["tuned"] == 4)
    rig.step(2)
    assert "all series" in rig.learning.order(())
    rig.until(trainer, lambda: rig.learning.outcomes["tuned"] == 7)


def test_drift_is_a_cause(rig: Rig) -> None:
    """The forecasts that were published turn out wrong, and the copy is tuned before its samples are full."""
    trainer = rig.trainer()
    rig.step(FIRST + 10)
    rig.until(trainer, lambda: rig.learning.outcomes.get("tuned", 0) >= 3)
    causes: list[str] = []
    tell = rig.learning._tell
    rig.learning._tell = lambda row, outcome, **n: (causes.append(n["cause"]), tell(row, outcome, **n))  # type: ignore
    rig.names.reverse()
    for _ in range(40):
        rig.names = rig.names[1:] + rig.names[:1]
        rig.step()
    rig.until(trainer, lambda: "drift" in causes)


# ---- the shared model


class Darer(Nudger):
    """A learner whose challengers are the shared model with a slightly larger bias."""

    #: what a challenger is, None where none would be better
    made: Weights | None = replace(MODEL, readout_bias=MODEL.readout_bias + np.float32(0.5))

    def challenge(self) -> Challenge | None:
        return Challenge(self.made, 1.0, 0.9, 3, 300) if self.made is not None else None


def darer(anchor: Weights, options: Options) -> Learner:
    return Darer(anchor, options.every_samples, options.copies, options.series)


def test_a_challenger_that_is_asked_for_is_drawn_and_comes_back_with_what_it_learnt_from(rig: Rig) -> None:
    with pytest.raises(ValueError, match="no trainer yet"):
        rig.learning.dare()
    trainer = rig.trainer(darer)
    assert "a challenger" in rig.learning.dare()
    rig.until(trainer, lambda: rig.learning.challenger)
    assert rig.learning.challenger is not None
    weights, told = rig.learning.challenger
    assert Darer.made is not None and digest(weights) == digest(Darer.made)
    assert (told.before, told.after, told.series, told.windows) == (1.0, 0.9, 3, 300)


@pytest.mark.parametrize(("challenge_s", "drawn"), [(100.0, 3), (0.0, 0)])
def test_challengers_are_drawn_at_intervals_or_never(tmp_path: Path, challenge_s: float, drawn: int) -> None:
    """The first one after a whole interval, however long the others take."""
    now, made = 0.0, 0

    class Counting(Darer):
        def challenge(self) -> Challenge | None:
            nonlocal made
            made += 1
            return None

    rig = Rig(tmp_path)
    link = rig.link()
    options = msgspec.structs.replace(SETTINGS.learning, challenge_s=challenge_s)
    trainer = Trainer(options, link, Ear(), lambda anchor, _: Counting(anchor, 64, 8, 8), lambda: now, lambda: 0.0)  # type: ignore[arg-type]
    trainer.greet()
    until(lambda: (rig.learning.hear(), trainer.hear(), trainer.learner)[-1])
    for _ in range(35):
        trainer.work()
        now += 10.0
    assert made == drawn
    if drawn:
        until(lambda: (rig.learning.hear(), rig.learning.challenger)[1])
        assert rig.learning.challenger == (None, letter.Challenger()), "none was better"
    rig.close()


@pytest.mark.parametrize("body", [b"short", copied.packed(replace(MODEL, bias=MODEL.bias * np.float32(np.nan)))])
def test_fault_22_a_challenger_that_is_none_is_passed_over(rig: Rig, body: bytes) -> None:
    link = rig.link()
    rig.learning._trainer = 1
    say(link, letter.Challenger(1.0, 0.9, 3, 300), body)
    say(link, Told(1, "rejected", 1.0, 2.0, "samples"))
    until(lambda: (rig.learning.hear(), rig.learning.outcomes)[1])
    assert rig.learning.challenger is None
