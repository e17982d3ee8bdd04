"""C4 from made-up runs: the table, the verdicts in words, and the page."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from configs import relations
from eval import doses
from eval.judge import verdicts
from eval.judge.claims import c4a_slower, c4b_capacity
from eval.judge.evidence import Evidence
from eval.measure import relations as measured
from eval.report import dose_figures, page
from eval.report.sections.doses import runs
from main import main
from tests.data import data_config
from tests.eval.workdirs import CAP, dose_workdir
from train.config import InputError, freeze
from train.data.relations import doses as languages
from train.data.relations import parse
from train.files import write_json
from train.grid import Replica
from train.run import metrics, starts
from train.workdir import Workdir, read_json


def slow_at_many(heads, number, seed):
    return round((900 + 20 * (seed % 10)) * (5 if heads == 1 and number == 6 else 1))


def evidence(workdir, cells, config) -> Evidence:
    return Evidence(workdir, config, doses=doses.write_table(workdir, cells, config))


def judged(workdir, cells, config) -> list:
    """C4a and C4b."""
    found = evidence(workdir, cells, config)
    return [c4a_slower.judge(found), c4b_capacity.judge(found)]


def test_a_gap_that_grows(tmp_path):
    workdir, cells, config = dose_workdir(tmp_path, slow_at_many)
    found = evidence(workdir, cells, config)
    table = found.doses
    assert len(table) == 4 * (6 + 2) and set(table.outcome) == {"reached"}
    assert pd.read_csv(workdir.results / "dose.csv").steps.tolist() == table.steps.tolist()
    slower, cannot = verdicts.write(found)
    assert (slower.id, slower.verdict, slower.n) == ("C4a", "supported", 6)
    assert slower.effect == pytest.approx(np.log(5), abs=1e-3)
    assert "one head takes 5.00 times (5.00 to 5.00) the steps of 8 heads" in slower.sentence
    assert (cannot.id, cannot.verdict) == ("C4b", "refuted") and cannot.effect == pytest.approx(0.04)
    saved = json.loads((workdir.results / "claims.json").read_text())
    assert [one["verdict"] for one in saved] == ["supported", "refuted"]


def test_capped_runs_count_as_the_cap_and_need_hand_built_ones(tmp_path):
    workdir, cells, config = dose_workdir(
        tmp_path, lambda heads, number, seed: 20_000 if (heads, number) == (1, 6) else 700 + 10 * seed
    )
    slower, cannot = judged(workdir, cells, config)
    assert slower.verdict == "supported" and slower.details["capped"] == {
        "h1_r1": 0,
        "h1_r6": 6,
        "h8_r1": 0,
        "h8_r6": 0,
    }
    assert cannot.verdict == "undecided" and cannot.sentence.startswith("Runs from hand-built weights are lacking.")
    assert cannot.low > 0.05


@pytest.mark.parametrize(("kept", "verdict"), [(6, "refuted"), (4, "refuted"), (3, "supported")])
def test_runs_by_hand_decide_where_drawn_ones_do_not_get_there(tmp_path, kept, verdict):
    """By the largest of all looks, not by the last."""
    capped = lambda heads, number, seed: 20_000 if (heads, number) == (1, 6) else 700 + 10 * seed  # noqa: E731
    workdir, cells, config = dose_workdir(tmp_path, capped, stages=(doses.TUNE, doses.FRESH, starts.HAND_BUILT))
    place = workdir.cell("d064_h001_r6")
    lines = [line for line in metrics.read(place.looks) if starts.HAND_BUILT not in line["replica"]]
    for seed in range(6):
        name = Replica(0.003, seed, seed, starts.HAND_BUILT).name
        for step, loss in ((50, 0.01), (5_000, 0.01 if seed < kept else 0.09), (CAP, 0.01)):
            lines.append({"pack": 2, "step": step, "replica": name, "loss": loss, "relations": {}})
    place.looks.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = evidence(workdir, cells, config)
    table = found.doses
    by_hand = table[(table.stage == starts.HAND_BUILT) & (table.num_heads == 1) & (table.relations == 6)]
    assert by_hand.worst.tolist() == [0.01] * kept + [0.09] * (6 - kept) and set(
        by_hand.names.str.split().str.len()
    ) == {6}
    cannot = c4b_capacity.judge(found)
    assert cannot.verdict == verdict
    assert (
        f"that tell all 64 answers apart, trained at a rate of 0.003, {kept} of 6 runs stay below it at every look"
        in cannot.sentence
    )
    html = page.write(found, [cannot]).read_text()
    assert "weights by hand" in html and "largest look" in html


def test_a_rate_that_decays_decides_nothing(tmp_path):
    workdir, cells, config = dose_workdir(tmp_path, slow_at_many)
    decays = dataclasses.replace(config, train=dataclasses.replace(config.train, schedule="cosine"))
    for verdict in judged(workdir, cells, decays):
        assert verdict.verdict == "undecided" and "the steps that are needed depend on the cap" in verdict.sentence


def test_when_the_rule_asks_for_runs_by_hand():
    config = freeze(relations.get_config().to_dict())
    high = [0.2, 0.3, 0.25, 0.28, 0.22, 0.26]
    assert c4b_capacity.asks_for_hand_built(6, high, config) and not c4b_capacity.asks_for_hand_built(4, high, config)
    assert not c4b_capacity.asks_for_hand_built(6, [0.04] * 6, config)
    assert not c4b_capacity.asks_for_hand_built(6, [0.04] * 5 + [0.6], config), "its lower limit is below .05"


def test_which_runs_by_hand_are_asked_for(tmp_path):
    """Those of one head at six relations whose drawn runs do not get there, however many have them already."""
    capped = lambda heads, number, seed: 20_000 if heads == 1 and number > 1 else 700 + 10 * seed  # noqa: E731
    drawn = evidence(*dose_workdir(tmp_path / "drawn", capped, doses=(1, 4, 6)))
    stages = (doses.FRESH, starts.HAND_BUILT)
    by_hand = evidence(*dose_workdir(tmp_path / "by_hand", capped, stages=stages))
    assert verdicts.further(drawn) == verdicts.further(by_hand) == [("d064_h001", 6)]
    assert verdicts.further(evidence(*dose_workdir(tmp_path / "held", slow_at_many))) == []
    assert verdicts.further(evidence(*dose_workdir(tmp_path / "none", capped, stages=()))) == []


def test_the_threshold_is_the_studys_own(tmp_path):
    """Runs that leave .04 hold the relations at .05 and not at .02."""
    workdir, cells, config = dose_workdir(tmp_path, slow_at_many)
    strict = dataclasses.replace(config, dose=dataclasses.replace(config.dose, threshold=0.02))
    (_, loose), (_, cannot) = judged(workdir, cells, config), judged(workdir, cells, strict)
    assert loose.verdict == "refuted" and "at most .05, or" in loose.rule and "the threshold is 0.05." in loose.sentence
    assert cannot.verdict == "undecided" and cannot.sentence.startswith("Runs from hand-built weights are lacking.")
    assert "at most .02, or" in cannot.rule and "lower limit above .02" in cannot.rule
    assert c4b_capacity.asks_for_hand_built(6, [0.04] * 6, strict)


def test_kinds_are_not_the_claims(tmp_path):
    config = relations.get_config()
    config.data.relations = "A,B,C,D,E,F,G"
    found = verdicts.write(Evidence(Workdir(tmp_path), freeze(config.to_dict())))
    assert [verdict.id for verdict in found] == ["C4a", "C4b"]
    for verdict in found:
        assert verdict.verdict == "undecided" and "are no dose of family P" in verdict.sentence


def test_other_starts_are_another_study(tmp_path):
    workdir, _, config = dose_workdir(tmp_path, slow_at_many)
    workdir.check_continues(config)
    assert freeze(workdir.record()["config"]) == config
    more = dataclasses.replace(config, dose=dataclasses.replace(config.dose, starts=("hand_built",)))
    with pytest.raises(InputError, match="dose.starts"):
        workdir.check_continues(more)
    record = read_json(tmp_path / "config.json")
    del record["config"]["dose"]["starts"]
    write_json(tmp_path / "config.json", record | {"format": 1})
    with pytest.raises(InputError, match="older version .format 1, this one reads 2.; run it with the version"):
        workdir.check_continues(config)


def weighted(spoken, excess):
    """An excess of each relation of a language, by its share of the questions."""
    return sum(relation.share * getattr(relation, excess) for relation in measured._rules(spoken, 0))


def test_what_attention_off_leaves_at_best():
    """The rule that sees the query alone is at ln 2 for every relation, the floor of noise apart."""
    for which in ("1", "A", "E", "G"):
        spoken = parse.language(data_config(source="relations", relations=which))
        assert weighted(spoken, "query_alone_excess") == pytest.approx(np.log(2), abs=0.01)


@pytest.mark.parametrize(("noise", "relations"), [(0.0, "1"), (0.1, "1"), (0.0, "D")])
def test_the_best_shortcut(noise, relations):
    """P1: the bag of the last four words, of which c = 0 ... 4 have the bit with probability C(4, c) / 16. D: the
    latest rare word leaves nothing, but this rule is the relation itself and so does not count."""

    def entropy(p):
        p = np.clip(p, 1e-12, 1 - 1e-12)
        return -(p * np.log(p) + (1 - p) * np.log(1 - p))

    found = weighted(parse.language(data_config(source="relations", relations=relations, noise=noise)), "best_excess")
    if relations == "D":
        assert 0.2 < found < np.log(2)
    else:
        bag = np.dot([1, 4, 6, 4, 1], entropy(noise + (1 - 2 * noise) * np.arange(5) / 4)) / 16
        assert found == pytest.approx(bag - entropy(noise), abs=0.01)


def test_each_seed_has_the_shortcut_of_its_own_language():
    config = freeze(relations.get_config().to_dict()).data
    spoken = [languages.spoken(config, dose, seed) for dose in (1, 6) for seed in range(6)]
    left = {" ".join(each.relations): weighted(each, "best_excess") for each in spoken}
    assert left["P1"] == pytest.approx(0.541, abs=0.01) and left["P11"] > 0.62
    # Six relations are the mean of what each leaves alone: the text is the same but for the answers.
    alone = [value for name, value in left.items() if len(name.split()) == 1]
    several = [value for name, value in left.items() if len(name.split()) == 6]
    assert len(alone) == 6 and several == pytest.approx([np.mean(alone)] * len(several), abs=0.01)


def test_what_cannot_be_judged_is_said(tmp_path):
    workdir, cells, config = dose_workdir(tmp_path / "a", lambda heads, number, seed: CAP)
    for verdict in judged(workdir, cells, config):
        assert verdict.verdict == "undecided" and verdict.sentence.startswith("Not testable here.")
    workdir, cells, config = dose_workdir(tmp_path / "b", slow_at_many, doses=(1, 4))
    for verdict in judged(workdir, cells, config):
        assert verdict.missing == ("No fresh run of 1 heads at 6 relations, 8 heads at 6 relations.",)
    workdir, cells, config = dose_workdir(tmp_path / "c", slow_at_many, stages=(doses.TUNE,))
    assert all(verdict.missing for verdict in judged(workdir, cells, config))


def test_the_page(tmp_path):
    """It has both verdicts, the runs, a figure for each dose, and the same bytes for the same results."""
    workdir, cells, config = dose_workdir(tmp_path, slow_at_many)
    found = evidence(workdir, cells, config)
    written = verdicts.write(found)
    path = page.write(found, written)
    html = path.read_text()
    assert all(verdict.sentence in html for verdict in written) and "4,750" in html
    names = {"steps", "left", "ratio", "curves_r1", "relations_r1", "curves_r6", "relations_r6"}
    assert {path.stem for path in (workdir.report / "figures").glob("*.svg")} == names
    assert html.count("<svg") == 7 and "http" not in html.replace("http://www.w3.org", "")
    page.write(evidence(workdir, cells, config), written)
    assert path.read_text() == html


def test_what_even_weights_leave():
    """Against the bits drawn and summed."""
    for count in range(1, 7):
        ones = (np.arange(2**count)[:, None] >> np.arange(count) & 1).sum(axis=1)
        assert dose_figures.even_weights(count) == pytest.approx(np.log(np.bincount(ones)[ones]).mean())
    assert dose_figures.even_weights(6) == pytest.approx(2.542, abs=5e-4)


def capped_table(tmp_path):
    steps = lambda heads, number, seed: 20_000 if (heads, number) == (1, 6) and seed % 6 < 2 else 500 + 10 * seed  # noqa: E731
    workdir, cells, config = dose_workdir(tmp_path, steps)
    return doses.write_table(workdir, cells, config), config


def test_capped_runs_are_arrows(tmp_path):
    """And no run is drawn twice."""
    table, config = capped_table(tmp_path)
    (axes,) = dose_figures.taken(table, config).axes
    drawn = [(len(marks.get_offsets()), marks.get_paths()[0].vertices) for marks in axes.collections]
    assert [count for count, _ in drawn] == [10, 2, 12, 0], "one head, then eight: those that got there, and the others"
    heights = [np.sort(marks.get_offsets()[:, 1].data).tolist() for marks in axes.collections]
    assert heights[1] == [10_000, 10_000] and max(heights[0]) < 600
    shapes = [vertices.shape for _, vertices in drawn]
    assert shapes[1] == shapes[3] and shapes[1] not in (shapes[0], shapes[2])


def test_losses_and_ratios_with_their_intervals(tmp_path):
    table, config = capped_table(tmp_path)
    ratios = dose_figures.ratios(table, 0.95)
    assert list(ratios) == [1, 6] and ratios[1].mean == 0
    one, many = ([10_000, 10_000, 520, 530, 540, 550], [500, 510, 520, 530, 540, 550])
    assert ratios[6].mean == pytest.approx(np.log(np.divide(one, many)).mean())
    (axes,) = dose_figures.ratio(ratios).axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), np.exp([ratios[1].mean, ratios[6].mean]))
    ends = [bar.get_segments() for bar in axes.collections][0]
    np.testing.assert_allclose([end[1] for end in ends[1]], np.exp([ratios[6].low, ratios[6].high]))
    (axes,) = dose_figures.left(table, config, 0.95).axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.04, (4 * 0.04 + 0.3 + 0.31) / 6])


def test_a_run_that_stopped_keeps_its_last_look():
    lines = [{"step": step, "relations": {"P1": loss}} for step, loss in ((50, 0.6), (100, 0.05))]
    assert dose_figures._held(lines, "P1", np.array([50, 100, 150, 200])).tolist() == [0.6, 0.05, 0.05, 0.05]


def test_relations_learnt_one_after_another(tmp_path):
    workdir, cells, config = dose_workdir(tmp_path, slow_at_many)
    folder = workdir.cell("d064_h001_r6").looks
    lines = [
        {"step": step, "replica": f"lr0.003_i{run}_d{run}", "loss": 0.1, "relations": {"P1": early, "P2": late}}
        for run, last in enumerate((400, 600) * 3)
        for step, early, late in ((50, 0.6, 0.7), (100, 0.3, 0.5), (last, 0.4, 0.2))
    ]
    folder.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = runs.context(evidence(workdir, cells, config), [])["rows"]
    apart = {(row["heads"], row["dose"]): row["apart"] for row in rows}
    assert apart[1, 6] == "100 and 500" and apart[8, 6] == "10,000 and 10,000" and apart[1, 1] == ""


def test_a_page_before_any_fresh_run(tmp_path):
    workdir, cells, config = dose_workdir(tmp_path / "tuned", slow_at_many, stages=(doses.TUNE,))
    found = evidence(workdir, cells, config)
    assert page.write(found, verdicts.write(found)).exists()
    workdir, cells, config = dose_workdir(tmp_path / "none", slow_at_many, stages=())
    found = evidence(workdir, cells, config)
    written = verdicts.write(found)
    assert page.write(found, written) is None and all(verdict.missing for verdict in written)


def test_a_workdir_of_doses_may_grow_by_heads_alone(tmp_path):
    workdir, _, config = dose_workdir(tmp_path, slow_at_many)

    def grown(**changes):
        return dataclasses.replace(config, grid=dataclasses.replace(config.grid, **changes))

    workdir.check_continues(grown(num_heads=(1, 2, 8)))
    for changes in ({"init_seeds": tuple(range(8))}, {"learning_rates": (0.0003, 0.001, 0.003, 0.01)}):
        with pytest.raises(InputError, match="grid.* -> .*Use another --workdir"):
            workdir.check_continues(grown(**changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--config.dose.relations=1,7"], "dose.relations asks for 7 relations and an answer has 6 bits"),
        (["--config.data.relations=A,B", "--config.dose.relations=3"], "dose.relations asks for 3 of data.relations"),
        (["--config.data.relations=4"], "data.relations='4' is not read where dose.relations=1,4,6 says"),
        (["--config.data.language_seed=2"], "data.language_seed=2 is not read where dose.relations=1,4,6"),
        (["--config.data.vocab_size=100"], "data.vocab_size=100 is too small"),
        (["--config.dose.starts=mlp_first"], "dose.starts=mlp_first cannot be"),
        (["--config.dose.starts=hand_built", "--config.grid.d_model=16"], "at least d_model=26, d_k=15, d_ff=2"),
    ],
)
@pytest.mark.parametrize("mode", ["study", "data"])
def test_what_cannot_be_is_said_before_anything_is_written(tmp_path, capsys, mode, changes, said):
    assert main(["--config=configs/relations.py", f"--workdir={tmp_path}/run", f"--mode={mode}", *changes]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.out == "" and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_study_of_doses(tmp_path, capsys):
    """From the command line: every stage of every cell, the verdicts, and nothing left to do for a second start."""
    small = {"grid.d_model": 16, "grid.learning_rates": "0.003,0.01", "grid.init_seeds": "0,1", "train.steps": 40}
    small |= {"train.batch_size": 4, "train.warmup_steps": 5, "dose.look_every": 20, "dose.documents": 8}
    small |= {"dose.relations": "1,6", "dose.threshold": 1.0, "data.max_bytes": 64_000}
    arguments = ["--config=configs/relations.py", f"--workdir={tmp_path}/run"]
    arguments += [f"--config.{name}={value}" for name, value in small.items()]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "C4a " in said and "C4b " in said and "no difference of" not in said
    table = pd.read_csv(tmp_path / "run" / "results" / "dose.csv")
    assert len(table[table.stage == "fresh"]) == 2 * 2 * 2 and set(table.stage) >= {"tune", "fresh"}
    before = (tmp_path / "run" / "results" / "dose.csv").read_bytes()
    assert main(arguments) == 0
    assert "runs" not in capsys.readouterr().out and (tmp_path / "run" / "results" / "dose.csv").read_bytes() == before
    assert main([word.replace("init_seeds=0,1", "init_seeds=0,1,2") for word in arguments]) == 2
    assert "grid.init_seeds: [0, 1] -> [0, 1, 2]" in capsys.readouterr().err
    assert main([f"--workdir={tmp_path}/run", "--mode=status"]) == 0
    assert capsys.readouterr().out.count("done") == 4
    assert main([f"--workdir={tmp_path}/run", "--mode=report"]) == 0
