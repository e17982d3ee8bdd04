"""When runs end: at their first low look, at the cap, or once another rate is ahead."""

import json
import math

import numpy as np
import pytest

from configs import relations
from train import grid
from train.config import freeze
from train.data import sources
from train.grid import Replica
from train.run import packs, starts, stops
from train.run.packs import Pack
from train.run.stops import Fixed, Outcome, UntilLow, hopeless
from train.study import tuning


def frozen(**changes):
    config = relations.get_config()
    config.train.steps = 2_000
    for name, value in changes.items():
        section, field = name.split("__")
        setattr(config[section], field, value)
    return freeze(config.to_dict())


def pack_of(replicas, dose=2) -> Pack:
    config = frozen()
    return Pack(0, grid.cells_of(config, sources.vocab_size(config.data))[0].model, replicas, "scan", {}, dose=dose)


REPLICAS = tuple(Replica(0.01, seed, seed) for seed in (3, 4, 5))


def rule(replicas=REPLICAS, cap=60, to_the_cap=False, known=None) -> UntilLow:
    return UntilLow(frozen(), pack_of(replicas), cap, "test", to_the_cap, known)


def looks_of(losses: dict[str, dict[int, float | None]]) -> list[dict]:
    """Lines of looks from name -> step -> loss, in the order in which the loop writes them."""
    steps = sorted({step for each in losses.values() for step in each})
    return [
        {"pack": 0, "step": step, "replica": name, "loss": each[step], "relations": {}}
        for step in steps
        for name, each in losses.items()
        if step in each
    ]


def test_a_run_ends_at_its_first_look_below_the_threshold():
    first, second, third = (replica.name for replica in REPLICAS)
    looks = looks_of({first: {20: 0.5, 40: 0.05}, second: {20: 0.03}, third: {20: 0.6, 40: 0.6, 60: 0.051}})
    early = [line for line in looks if line["step"] == 20]
    assert rule().ended(early) == {second: Outcome(20, "reached", 0.03)}
    assert rule().ended(looks).keys() == {first, second}
    assert rule().outcomes(looks) == [
        Outcome(40, "reached", 0.05), Outcome(20, "reached", 0.03), Outcome(60, "capped", 0.051),
    ]  # fmt: skip


def test_a_run_that_diverges_counts_as_capped_at_chance():
    name = REPLICAS[0].name
    assert rule().ended(looks_of({name: {20: None}})) == {name: Outcome(60, "diverged", math.log(2))}
    assert rule(to_the_cap=True).ended(looks_of({name: {20: None}})).keys() == {name}


def test_runs_to_the_cap_end_there_however_low():
    looks = looks_of({replica.name: {20: 0.001, 60: 0.002} for replica in REPLICAS})
    to_the_cap = rule(to_the_cap=True)
    assert not to_the_cap.ended(looks) and to_the_cap.outcomes(looks) == [Outcome(60, "capped", 0.002)] * 3


def test_which_runs_have_ended_depends_on_no_order_of_the_lines():
    replicas = grid.replicas((0.001, 0.01), ((3, 3), (4, 4)))
    draw, competing = np.random.default_rng(0), rule(replicas, known={})
    looks = looks_of({replica.name: {step: draw.choice([0.6, 0.04]) for step in (20, 40)} for replica in replicas})
    ended = competing.ended(looks)
    for _ in range(5):
        assert competing.ended(draw.permutation(looks).tolist()) == ended
    assert competing.ended(json.loads(json.dumps(looks))) == ended


def test_a_rate_gives_up_once_another_is_ahead():
    replicas = grid.replicas((0.001, 0.01), ((3, 3), (4, 4)))
    names = [replica.name for replica in replicas]
    competing, alone = rule(replicas, 2_000, known={}), rule(replicas, 2_000, known=None)
    early = looks_of({names[0]: {100: 0.6}, names[1]: {100: 0.6}, names[2]: {100: 0.04}, names[3]: {100: 0.6}})
    assert list(competing.ended(early)) == [names[2]], "the rate's median is not known yet"
    looks = [*early, *looks_of({names[0]: {200: 0.6}, names[1]: {200: 0.6}, names[3]: {200: 0.04}})]
    assert competing.ended(looks).keys() == {*names}, "150 is below what the others can still have"
    assert [run.why for run in competing.outcomes(looks)] == ["hopeless", "hopeless", "reached", "reached"]
    assert [run.steps for run in competing.outcomes(looks)] == [200, 200, 100, 200]
    assert alone.ended(looks).keys() == {*names[2:]}


def test_a_rate_that_extends_the_others_competes_with_what_they_needed():
    replicas = grid.replicas((0.001,), ((3, 3), (4, 4)))
    added = rule(replicas, 2_000, known={0.01: [100, 200]})
    looks = looks_of({replica.name: {100: 0.6, 200: 0.6} for replica in replicas})
    assert not added.ended([line for line in looks if line["step"] == 100])
    assert {run.why for run in added.ended(looks).values()} == {"hopeless"} and len(added.ended(looks)) == 2


def test_a_rate_whose_runs_are_in_two_packs_is_judged_by_all_of_them():
    """Where memory splits the tuning runs, what has not begun may still be slow, or fast."""
    first, second = grid.replicas((0.001,), ((3, 3), (4, 4)))
    half = Replica(0.01, 3, 3)  # the other half comes in a later pack
    competing = rule((first, second, half), 2_000, known={})
    looks = looks_of({first.name: {100: 0.6}, second.name: {100: 0.6}, half.name: {50: 0.04}})
    assert competing.ended(looks).keys() == {half.name}, "the rate that is ahead is not whole"
    competing = rule((half,), 2_000, known={0.001: [300, 300]})
    assert not competing.ended(looks_of({half.name: {400: 0.6}})), "its other run may come at once"
    assert competing.ended(looks_of({half.name: {650: 0.6}})), "and then the median is above all the same"


def test_a_rate_stops_as_soon_as_it_cannot_be_best():
    """Stopping never changes which rate is best."""
    assert not hopeless(800, {0.001: [None, None], 0.003: [600, None]}, 0.001), "no other is whole"
    assert not hopeless(700, {0.001: [None, None], 0.003: [600, 900]}, 0.001)
    assert hopeless(800, {0.001: [None, None], 0.003: [600, 900]}, 0.001)
    assert hopeless(1_200, {0.001: [400, None], 0.003: [600, 900]}, 0.001)
    draw = np.random.default_rng(0)
    for _ in range(200):
        truth = {rate: sorted(draw.integers(1, 40, 2) * 50) for rate in (0.001, 0.003, 0.01)}
        stopped = {}
        for step in range(50, 2_050, 50):
            known = {rate: [run if run <= step else None for run in runs] for rate, runs in truth.items()}
            for rate in truth:
                if rate not in stopped and None in known[rate] and hopeless(step, known, rate):
                    stopped[rate] = [step if run is None else run for run in known[rate]]
        medians = {rate: np.median(runs) for rate, runs in truth.items()}
        found = tuning.best_rate({rate: (np.median(runs), 0.0) for rate, runs in (truth | stopped).items()})
        assert medians[found] == min(medians.values())


def test_the_rule_of_a_pack():
    config = frozen(train__steps=20_000)
    assert stops.rule_for(pack_of(REPLICAS, dose=0), config, {}) == Fixed(20_000)
    judged = stops.rule_for(pack_of(REPLICAS), config, {0.01: [50]})
    assert (judged.split, judged.cap, judged.known, judged.to_the_cap) == ("test", 20_000, None, False)
    assert judged.look_every == config.dose.look_every
    tunes = stops.rule_for(pack_of(grid.replicas((0.001, 0.01), grid.choosing_seeds(config))), config, {0.03: [50]})
    assert (tunes.split, tunes.cap, tunes.known, tunes.to_the_cap) == ("tune", 20_000, {0.03: [50]}, False)
    for start, cap in ((starts.HAND_BUILT, 20_000), (starts.NO_ATTENTION, 1_000), (starts.MLP_FIRST, 20_000)):
        started = stops.rule_for(pack_of(grid.replicas((0.01,), ((3, 3),), start)), config, {})
        assert (started.cap, started.to_the_cap) == (cap, start != starts.MLP_FIRST)


@pytest.mark.parametrize(("every", "cap"), [(50, 1_000), (300, 1_200), (2_000, 2_000)])
def test_the_cap_without_attention_is_whole_looks_and_no_more_than_the_studys(every, cap):
    config = frozen(dose__look_every=every, train__steps=6_000)
    pack = pack_of(grid.replicas((0.01,), ((3, 3),), starts.NO_ATTENTION))
    assert stops.rule_for(pack, config, {}).cap == cap
    assert stops.rule_for(pack, frozen(dose__look_every=20, train__steps=60), {}).cap == 60


def test_a_pack_of_a_dose_is_read_back_as_it_was():
    pack = pack_of(grid.replicas((0.01,), ((3, 3),), starts.MLP_FIRST))
    assert packs.from_json(json.loads(json.dumps(pack.as_json()))) == pack
