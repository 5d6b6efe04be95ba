"""Who serves, decided on live samples: trials, the way back, and orders by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from forecastd.daemon.batch import Batch, Parcel
from forecastd.daemon.champion import Champions, Unfit
from forecastd.daemon.control import Order
from forecastd.daemon.lineage import Lineage
from forecastd.daemon.pipeline import Pipeline
from forecastd.daemon.settings import Settings
from forecastd.daemon.succession import GUARD, Succession
from forecastd.models.checkpoint import Checkpoint, encode, load, seal
from forecastd.models.recurrent import Recurrent
from forecastd.models.weights import digest
from forecastd.tests.feed import NOW, model, state

GENERAL = load("general")


def spoilt(noise: float, seed: int = 0) -> Checkpoint:
    """`general` with noise on its readout: the more, the worse."""
    random, weights = np.random.default_rng(seed), GENERAL.weights
    readout = weights.readout + random.normal(0.0, noise, weights.units).astype(np.float32)
    return seal(Checkpoint(replace(weights, readout=readout), {"name": "spoilt"}))


BAD, GOOD = spoilt(0.3), GENERAL


class World:
    """A pipeline and its succession, fed as the engine does it. The clock stands still unless it is moved."""

    def __init__(
        self, root: Checkpoint = GENERAL, series: int = 1, seed: int = 0, champions: Champions | None = None
    ) -> None:
        self.champions = champions or Champions(root, Lineage(), {})
        self.champions.start(NOW, 0)
        settings = Settings(experts=("naive", "ar", "rnn"), levels=())
        self.pipeline = Pipeline(settings, self.champions.weights, self.champions.number)
        self.now = 0.0
        self.succession = Succession(self.pipeline, self.champions, lambda: self.now)
        self.events: list[dict[str, Any]] = []
        self.series = series
        self.taken = 0
        self._values = self._waves(seed)

    def _waves(self, seed: int) -> Iterator[np.ndarray[Any, np.dtype[np.float64]]]:
        random, t = np.random.default_rng(seed), 0
        while True:
            t += 1
            yield np.sin(t / (4.0 + np.arange(self.series))) + random.normal(0.0, 0.1, self.series)

    def run(self, rounds: int, stop: str = "") -> int:
        """So many rounds, or until an event of that kind; how many there were."""
        for k in range(rounds):
            self.pipeline.learning = self.succession.watching
            values = next(self._values)
            names = [f"s{i}" for i in range(self.series)]
            batch = Batch(names, values, np.full(self.series, NOW + self.taken), [Parcel(0, self.series)])
            self.taken += 1
            self.now += 0.01 * self.series
            self.effects = self.pipeline.step(batch, NOW + self.taken)
            self.pipeline.finish()
            self.succession.take(self.effects.lessons)
            self.succession.turn(NOW + self.taken, self.taken, whole=self.taken % 10 == 0)
            news, _ = self.succession.taken()
            self.events += news
            if stop and any(event["event"] == stop for event in news):
                return k + 1
        return rounds

    def obey(self, order: Order, body: bytes = b"") -> str:
        said = self.succession.obey(order, body, NOW + self.taken, self.taken).said
        self.events += self.succession.taken()[0]
        return said

    def challenge(self, model: Checkpoint) -> bool:
        return self.succession.challenge(model.weights, {"series": 3}, {"held_out_mae": 0.5})

    def promote(self, model: Checkpoint) -> None:
        assert self.obey(Order("import", promote=True), encode(model)).endswith("serves")

    def served(self) -> tuple[int, str]:
        (rnn,) = (expert for expert in self.pipeline.forecaster.experts if isinstance(expert, Recurrent))
        return self.pipeline.version, digest(rnn.weights)

    @property
    def kinds(self) -> list[str]:
        return [event["event"] for event in self.events]


@pytest.mark.parametrize("series", [1, 3, 40])
@pytest.mark.parametrize("seed", range(2))
def test_a_worse_model_promoted_by_hand_is_rolled_back_by_itself(series: int, seed: int) -> None:
    """Within 200 samples of each series, whatever the clock says: there is time enough."""
    world = World(series=series, seed=seed)
    world.run(100)
    world.promote(BAD)
    assert (world.served(), world.kinds) == ((2, BAD.sha256), ["promoted"])
    assert world.run(500, "rolled_back") <= 200
    assert world.served() == (1, GENERAL.sha256)
    assert world.kinds == ["promoted", "rolled_back"]
    event = world.events[-1]
    assert (event["number"], event["before"]) == (1, 2)
    assert event["evidence"] >= 2 / GUARD[0] and event["gain"] > 0.1
    assert not world.succession.watching, "one that lost has nobody to watch"


def test_a_model_that_is_as_good_stays() -> None:
    world = World(BAD)
    world.promote(spoilt(0.3001))
    assert world.run(1_500, "rolled_back") == 1_500
    assert world.pipeline.version == 2


def test_a_better_challenger_is_promoted_and_watched_by_the_one_before() -> None:
    world = World(BAD)
    world.run(60)
    assert world.challenge(GENERAL)
    assert not world.challenge(GENERAL), "one at a time"
    assert world.run(500, "promoted") < 250
    assert world.pipeline.version == 2 and world.champions.model.sha256 == GENERAL.sha256
    on_trial, won, promoted = world.events
    assert (on_trial["outcome"], won["outcome"]) == ("on_trial", "won")
    assert promoted["cause"] == "trial" and promoted["evidence"] >= 100.0 and promoted["gain"] > 0.1
    assert world.succession.watching
    champion = world.champions.lineage.champion()
    assert champion is not None and (champion.reason, champion.number) == ("promoted", 2)
    assert champion.figures["samples"] == promoted["samples"]
    manifest = world.champions.model.manifest
    assert manifest["parent"] == {"name": "spoilt", "sha256": BAD.sha256}
    assert (manifest["name"], manifest["data"], manifest["scores"]) == (
        "spoilt-tuned",
        {"series": 3},
        {"held_out_mae": 0.5},
    )


def test_a_worse_challenger_loses_and_nothing_changes() -> None:
    """Not a bit of what is published."""
    plain, world = World(), World()
    for one in (plain, world):
        one.run(60)
    world.challenge(BAD)
    world.run(300)
    plain.run(300)
    assert [event["outcome"] for event in world.events] == ["on_trial", "lost"]
    assert world.events[-1]["gain"] < 0.0
    assert world.pipeline.version == 1 and not world.succession.watching
    assert state(world.pipeline) == state(plain.pipeline)
    assert list(world.champions.lineage.versions) == [1], "one that lost gets no number"


def test_a_challenger_of_another_shape_or_with_a_number_that_is_none_is_refused() -> None:
    world = World()
    with pytest.raises(Unfit, match="units"):
        world.challenge(model(units=3))
    nan = replace(GENERAL.weights, bias=np.full_like(GENERAL.weights.bias, np.nan))
    with pytest.raises(ValueError, match="not finite"):
        world.challenge(Checkpoint(nan, {}))
    assert not world.succession.watching


def test_an_order_by_hand_ends_a_trial() -> None:
    """It was about the champion there was."""
    world = World()
    world.challenge(spoilt(0.1))
    world.promote(GOOD if world.champions.model.sha256 != GOOD.sha256 else BAD)
    assert world.challenge(spoilt(0.1)), "there is room for another one"


def test_orders_say_what_became_of_them() -> None:
    world = World()
    assert world.obey(Order("import"), encode(BAD)) == "version 2: spoilt, is kept"
    assert world.pipeline.version == 1
    assert world.obey(Order("promote", number=2)) == "version 2: spoilt, serves"
    assert world.obey(Order("promote", number=2)) == "version 2: spoilt, serves already"
    assert world.obey(Order("rollback")) == "version 1: general, serves"
    assert world.kinds == ["promoted", "promoted"]
    with pytest.raises(ValueError, match="no version 9"):
        world.obey(Order("promote", number=9))
    with pytest.raises(ValueError, match="damaged"):
        world.obey(Order("import"), encode(BAD)[:-300])
    assert world.pipeline.version == 1


def test_there_is_no_rollback_without_a_predecessor() -> None:
    with pytest.raises(ValueError, match="no version has served before"):
        World().obey(Order("rollback"))


def test_the_predecessor_watches_again_after_a_restart() -> None:
    """The trial begins anew, the champion is still guarded."""
    world = World()
    world.promote(BAD)
    champions = Champions(GENERAL, world.champions.lineage, world.champions._bodies)
    again = World(champions=champions)
    assert again.succession.watching and champions.number == 2
    assert again.run(400, "rolled_back") <= 200
    once_more = World(champions=Champions(GENERAL, champions.lineage, champions._bodies))
    assert once_more.champions.number == 1 and not once_more.succession.watching


def test_shadows_take_no_more_than_their_share_of_the_time() -> None:
    """Where each look at the clock takes ten milliseconds, most samples are passed over."""
    world = World()
    world.promote(BAD)
    looks = 0

    def slow() -> float:
        nonlocal looks
        looks += 1
        world.now += 0.01
        return world.now

    world.succession._clock = slow
    taken = 0
    take = world.succession._shadow.take

    def counted(lesson: Any) -> None:
        nonlocal taken
        taken += 1
        take(lesson)

    world.succession._shadow.take = counted  # type: ignore[method-assign]
    world.run(600)
    assert 20 < taken < 200


def test_what_is_told_of_the_models_has_roles_and_figures() -> None:
    world = World()
    world.promote(spoilt(0.001))
    world.run(30)
    world.challenge(BAD)
    roles = {one["status"]: one for one in world.succession.told()}
    assert [roles[role]["version"] for role in ("champion", "predecessor", "challenger")] == [2, 1, 0]
    assert roles["predecessor"]["rounds"] > 0 and "evidence" in roles["predecessor"]
