"""C7 and C9 on the tables of a study, and what the page shows of them."""

import itertools

import numpy as np
import pandas as pd
import pytest

from eval import measurements
from eval.heads.composition.circuits import DIRECT, EDGE, RANDOM, SOURCE, TOP
from eval.judge import rules, who_decides
from eval.judge.claims import c7_hierarchy, c9a_slot, c9b_roles
from eval.judge.evidence import Evidence
from eval.judge.single import by_model
from eval.report import page
from tests.eval import workdirs
from tests.eval.heads.test_factorial import ALONE_INIT, NEITHER, simulated
from train import grid
from train.config import freeze
from train.data import corpora

CELL, RATE = "d016_h004", 0.01


def evidence_of(folder, tables, **changes):
    shape = {"d_model": (16,), "num_heads": (1, 4), "learning_rates": (RATE,), "init_seeds": tuple(range(6))}
    workdir, cells = workdirs.build(folder, files=30, **shape | changes)
    record = workdir.record()["config"]
    for name, table in tables.items():
        measurements.write(workdir, name, table)
    return Evidence(workdir, freeze(record), corpora.open_corpus(workdir.data), cells)


def of_run(seed, **columns):
    name = grid.Replica(RATE, seed, seed).name
    about = {"cell": CELL, "replica": name, "learning_rate": RATE, "init_seed": seed, "data_seed": seed}
    return about | {"split": "test"} | columns


def circuit_tables(lost, seeds=range(6)):
    """Tables of models whose head 1.2 reads 0.3 for its keys, which carries `lost` nats/token."""
    random, patched, composed, roles = np.random.default_rng(0), [], [], []
    for seed in seeds:
        about = {"role": "induction", "layer": 1, "readers": "1.2", "kind": "k", "sources": "0.3", "reader": ""}
        carried = {TOP: lost, RANDOM: 0.01, DIRECT: 0.1 * lost, SOURCE: lost, EDGE: lost}
        for what, nats in carried.items():
            for file in range(30):
                rise = 100 * (nats + 0.02 * random.normal())
                changed = {"reader": "1.2"} if what == EDGE else {}
                own = {
                    "what": what,
                    "decides": what in (TOP, RANDOM),
                    "document": f"{file}",
                    "tokens": 100,
                    "rise": rise,
                }
                patched.append(of_run(seed, **about | changed | own))
        for kind, source, target in itertools.product("qkv", range(8), range(8)):
            if source != target:
                where = ("same", "later", "earlier")[int(np.sign(target // 4 - source // 4))]
                p = 1e-4 if (kind, source, target) == ("k", 3, 6) else random.uniform(0.04, 1)
                ends = {"from_layer": source // 4, "from_head": source % 4, "to_layer": target // 4}
                composed.append(of_run(seed, kind=kind, place=where, **ends, to_head=target % 4, score=0.1, z=0.0, p=p))
        for role, layer, head in (("induction", 1, 2), ("previous token", 0, 3)):
            own = dict(text="own", positional=False, queries=900, files=30.0, which="elsewhere", untrained=0.1)
            numbers = dict.fromkeys(("mass", "reference", "error", "low", "high", "above", "least", "most"), 0.5)
            rest = dict.fromkeys(("rise", "rise_low", "rise_high", "gain"), 0.2)
            own |= {"role": role, "layer": layer, "head": head, "called": True, "effect": 0.9, "offset": 0}
            roles.append(of_run(seed, **own, **numbers, **rest))
    return {"patching": pd.DataFrame(patched), "composition": pd.DataFrame(composed), "roles": pd.DataFrame(roles)}


@pytest.mark.parametrize("lost, verdict", [(0.6, rules.SUPPORTED), (0.02, rules.REFUTED)])
def test_c7_is_decided_by_what_the_top_sources_carry(lost, verdict, tmp_path):
    evidence = evidence_of(tmp_path, circuit_tables(lost))
    assert c7_hierarchy.applies(evidence) == ""
    judged = c7_hierarchy.judge(evidence)
    assert judged.verdict == verdict and judged.n == 6 and not judged.missing and "6 of 6 runs" in judged.sentence
    assert abs(judged.effect - (lost - 0.01)) < 0.02
    judged.record()
    single = next(part for part in judged.parts if part["num_heads"] == 1)
    assert single["learnt"] == 0 and "5 seeds" in single["why"]
    if lost > 0.1:
        html = page.write(evidence, [judged]).read_text()
        assert 'id="circuits"' in html and "k (6)" in html and "1.2, induction" in html
        assert html.count("read for its k") >= 1


def test_c7_needs_five_seeds_that_bear_it_and_runs_that_are_apart(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    judged = c7_hierarchy.judge(evidence_of(tmp_path / "a", circuit_tables(0.6, range(3))))
    assert judged.verdict == rules.UNDECIDED and "not testable" in judged.sentence and "and 3 do" in judged.missing[0]
    crossed = {"seeds": "crossed", "init_seeds": (0, 1), "data_seeds": (0, 1)}
    judged = c7_hierarchy.judge(evidence_of(tmp_path / "b", circuit_tables(0.6, range(2)), **crossed))
    assert "no independent seeds" in judged.missing[0]


def stability_table(runs):
    """Rows as of two layers of runs, by index and matched alike."""
    names = [
        grid.Replica(RATE, int(i), int(j), grid.PERTURBED if again else grid.DRAWN)
        for i, j, again in zip(runs.init, runs.data, runs.again, strict=True)
    ]
    rows = []
    for (a, one), (b, other) in itertools.combinations(enumerate(names), 2):
        for layer in (0, 1):
            about = {"cell": CELL, "replica": one.name, "learning_rate": RATE, "init_seed": one.init_seed}
            ends = {"other_init": other.init_seed, "other_data": other.data_seed, "other_start": other.start}
            about |= {"data_seed": one.data_seed, "split": "test", "start": one.start, "other": other.name, **ends}
            agree = 1 - 0.2 * runs.apart[a, b]
            rows.append(about | {"step": 9, "layer": layer, "by_index": agree, "matched": agree, "left_out": 0})
    return pd.DataFrame(rows)


CROSSED = {"seeds": "crossed", "init_seeds": tuple(range(6)), "data_seeds": tuple(range(6)), "repeats": 8}


@pytest.mark.parametrize("components, verdict", [(ALONE_INIT, rules.SUPPORTED), (NEITHER, rules.UNDECIDED)])
def test_c9_says_who_decides_and_which_runs_are_lost(components, verdict, tmp_path):
    runs = simulated(np.random.default_rng(5), components, inits=6, orders=6, repeats=8)
    table = stability_table(runs)
    gone = grid.Replica(RATE, 2, 3).name
    table = table[(table.replica != gone) & (table.other != gone)]
    evidence = evidence_of(tmp_path, {"stability": table}, **CROSSED)
    assert c9a_slot.applies(evidence) == ""
    judged = [claim.judge(evidence) for claim in (c9a_slot, c9b_roles)]
    for one in judged:
        assert one.verdict == verdict and not one.missing and one.n == 6
        assert "1 of 36 runs diverged or are not there" in one.notes[0] and "(2, 3)" in one.notes[0]
        one.record()
    back = who_decides.runs_of(by_model.rows(evidence, "stability"), "by_index")
    kept = (runs.init != 2) | (runs.data != 3) | runs.again
    order = np.lexsort((runs.data[kept], runs.init[kept], runs.again[kept]))
    known = ~(back.again[:, None] & back.again)
    wanted = 0.2 * runs.apart[np.ix_(kept, kept)][np.ix_(order, order)]
    np.testing.assert_allclose(back.apart[known], wanted[known], atol=1e-12)
    if verdict == rules.SUPPORTED:
        assert "the init decides more" in judged[0].sentence
        html = page.write(evidence, judged).read_text()
        assert 'id="stability"' in html and html.count("init 5") >= 2 and "init a millionth off" in html


def test_c9_takes_five_seeds_either_way(tmp_path):
    runs = simulated(np.random.default_rng(6), ALONE_INIT, inits=2, orders=2, repeats=2)
    few = {"init_seeds": (0, 1), "data_seeds": (0, 1), "repeats": 2, "seeds": "crossed"}
    evidence = evidence_of(tmp_path, {"stability": stability_table(runs)}, **few)
    judged = c9a_slot.judge(evidence)
    assert (
        judged.verdict == rules.UNDECIDED
        and "5 init seeds and 5 data seeds, and there are 2 and 2" in judged.missing[0]
    )
    assert "not testable" in judged.sentence
    page.write(evidence, [judged])


def test_c9_asks_of_crossed_seeds_alone(tmp_path):
    assert "grid.seeds=crossed" in c9a_slot.applies(evidence_of(tmp_path, {}))
