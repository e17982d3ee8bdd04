"""The page: whole, self-contained, true to the tables, and not upset by any state of a study."""

import dataclasses
import html.parser
import json
import re
import shlex
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import scipy.stats

import main
from eval.judge import verdicts
from eval.judge.claims import c1_several_heads
from eval.judge.evidence import Evidence
from eval.judge.paired import showing
from eval.report import figures, page, style
from eval.report.sections.grid import cost, losses, rates, training
from eval.report.sections.study import making, standing
from tests.eval.workdirs import build
from train.config import freeze
from train.data import corpora
from train.workdir import Workdir


class Parsed(html.parser.HTMLParser):
    """Tables by id as lists of rows of text, every tag with its attributes, all text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.tables, self.text, self._rows, self._cell = [], {}, "", None, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self._rows = self.tables.setdefault(dict(attrs).get("id", len(self.tables)), [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._cell = ""

    def handle_data(self, text):
        self.text += text
        if self._cell is not None:
            self._cell += text

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._rows[-1].append(self._cell.strip())
            self._cell = None


def evidence(workdir: Workdir, table: pd.DataFrame) -> Evidence:
    return Evidence(workdir, freeze(workdir.record()["config"]), corpora.open_corpus(workdir.data), table)


def read(workdir: Workdir, table: pd.DataFrame) -> tuple[str, Parsed]:
    found = evidence(workdir, table)
    text = page.write(found, verdicts.write(found)).read_text()
    parsed = Parsed(text)
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b|NaT", parsed.text)
    return text, parsed


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of two d_model in which one seed of a cell diverged at every rate, its page, and the page parsed."""
    workdir, table = build(tmp_path_factory.mktemp("study"), lost=[("d032_h004", None, 1)])
    return workdir, table, *read(workdir, table)


def test_the_page_needs_nothing_beside_it(study):
    workdir, _, text, parsed = study
    assert "http://" not in text and "https://" not in text and "url(http" not in text and "@import" not in text
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in parsed.tags}
    assert all(value.startswith("#") for _, found in parsed.tags for key, value in found.items() if "href" in key)
    assert len(text.encode()) < 1_500_000
    ids = [found["id"] for _, found in parsed.tags if "id" in found]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
    assert used and used <= set(ids)
    assert not list(workdir.report.rglob("*.tmp"))


def test_tables_on_the_page_agree_with_the_results(study):
    _, table, _, parsed = study
    losses = {row[0]: row for row in parsed.tables["losses"][1:]}
    costs = {row[0]: row for row in parsed.tables["costs"][1:]}
    assert set(losses) == set(costs) == set(table.cell)
    for cell in table.itertuples():
        row = losses[cell.cell]
        assert row[1:3] == [str(cell.num_heads), str(cell.d_k)]
        assert row[5] == f"{cell.test_loss:.4f}" and row[-1] == f"{cell.diverged} of {cell.replicas}"
        assert row[6] == f"{cell.test_loss_low:.4f} to {cell.test_loss_high:.4f}".replace("-", "−")
        row = costs[cell.cell]
        sizes = cell.params, cell.params_non_embedding, cell.params_attention, cell.flops_per_token, cell.exps_per_token
        assert row[4:9] == [f"{size:,}" for size in sizes]
        assert row[9:11] == [cell.attention, f"{cell.step_ms:.1f}"] and row[13:] == ["20.0", "4.5"]
    assert "Attention parameters are identical over h within a d_model" in parsed.text


def test_every_seed_at_the_chosen_rate_is_drawn(study):
    workdir, table, text, _ = study
    wanted = {figures.gid(cell, seed, seed) for cell in table.cell for seed in (0, 1, 2)}
    for axis in ("num_heads", "d_k"):
        drawn = re.findall(rf'id="loss_{axis}_d\d+\.(seed-[^"]+)"', text)
        assert sorted(drawn) == sorted(wanted)
        drawn = re.findall(rf'id="difference_{axis}\.(seed-[^"]+)"', text)
        assert sorted(drawn) == sorted(gid for gid in wanted if "h001" not in gid)
    file = (workdir.report / "figures/loss_num_heads_d032.svg").read_text()
    assert file.count(".seed-d032_h001-") == 3 and "var(--" not in file and "var(--category-0)" in text


def test_no_legend_leaves_its_figure(monkeypatch, tmp_path):
    """Names of one line and of many, short and long, and the bigram model inside the frame and above it."""
    kept = []
    monkeypatch.setattr(style, "svg", lambda figure, name: kept.append((name, figure)) or "<svg></svg>")
    few = {"d_model": (16,), "learning_rates": (0.008,), "tuning_seeds": (7, 8), "files": 40}
    for number, shapes in enumerate(({"num_heads": (1, 4, 16)}, {"num_heads": (1, 4), "num_layers": (1, 4)})):
        folder = tmp_path / str(number)
        folder.mkdir()
        read(*build(folder, **few, **shapes))
    assert len(kept) > 15
    for name, figure in kept:
        figure.canvas.draw()
        for legend in figure.legends:
            box, frame = legend.get_window_extent(), figure.bbox
            assert box.x0 >= frame.x0 and box.x1 <= frame.x1 and box.y0 >= frame.y0 and box.y1 <= frame.y1, name


@pytest.mark.parametrize("low, high", [(20, 20), (17, 40), (80, 130), (0.03, 0.09), (3, 4000), (99, 1001)])
def test_a_cost_axis_has_ticks_to_read_it_by(low, high):
    cells = pd.DataFrame({"num_heads": (1, 4), "d_model": 16, "series": "", "num_layers": 2, "depth": ""})
    (axes,) = figures.cost(cells, "num_heads", pd.Series([low, high], dtype=float), "Memory", "MiB").axes
    inside = [tick for tick in axes.get_yticks() if axes.get_ylim()[0] <= tick <= axes.get_ylim()[1]]
    assert 3 <= len(inside) <= 12
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"{tick:g}" for tick in inside]


@pytest.mark.parametrize("a_step, power", [(2e6, 9), (3e12, 15), (4e18, 21)])
def test_the_power_of_flops_fits_the_study(a_step, power):
    step = np.arange(1, 2001)
    lines = pd.DataFrame({"step": step, "flops": a_step * step, "loss": 9 / step, "num_heads": 1, "d_model": 16})
    (axes,) = figures.curves(lines.assign(series="", num_layers=2, depth=""), "flops", "training FLOPs").axes
    axes.figure.canvas.draw()
    assert f"(10{str(power).translate(figures.RAISED)})" in axes.get_xlabel()
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks and not any("e" in tick for tick in ticks)
    assert axes.lines[0].get_xdata()[0] == pytest.approx(a_step / 10**power)


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """(workdir, cells table, page) of a study with tuning seeds, the one that has verdicts."""
    workdir, table = build(tmp_path_factory.mktemp("judged"), tuning_seeds=(7, 8))
    return workdir, table, read(workdir, table)[1]


def test_the_verdict_is_the_paired_difference(judged):
    workdir, table, parsed = judged
    runs = pd.read_parquet(workdir.results / "replicas.parquet")
    unigram = corpora.unigram_entropy(corpora.open_corpus(workdir.data))
    runs["loss"] = runs.loss.where(runs.status == "done", unigram)
    differences = []
    for _, cells in table.groupby("d_model"):
        cells = cells.set_index("num_heads")
        one, other = (
            runs[(runs.cell == cells.cell[h]) & (runs.split == "test") & (runs.learning_rate == cells.learning_rate[h])]
            for h in (1, cells.tune_loss.drop(1).idxmin())
        )
        differences.append(one.loss.to_numpy() - other.loss.to_numpy())
    differences = np.mean(differences, axis=0)
    result = scipy.stats.ttest_1samp(differences, 0).confidence_interval()
    signs = [f"{value:+.3f}".replace("-", "−") for value in (differences.mean(), *result)]
    assert f"{signs[0]} [{signs[1]}, {signs[2]}]" in parsed.text
    assert "The test files weigh as 1.0 of equal length; 20 are needed" in parsed.text


def test_without_tuning_seeds_nothing_is_said_of_a_claim(study):
    workdir, _, _, parsed = study
    assert "rates and the best h were chosen on the very seeds" in " ".join(parsed.text.split())
    assert all(claim["effect"] is None for claim in json.loads((workdir.results / "claims.json").read_text())[:2])


def test_the_page_shows_what_was_computed_beside_a_verdict(tmp_path):
    protocol = {"tuning_seeds": (7, 8), "init_seeds": tuple(range(6)), "files": 40, "num_heads": (1, 4, 16)}
    workdir, table = build(tmp_path, d_model=(16,), learning_rates=(0.002, 0.004, 0.008, 0.016, 0.032), **protocol)
    text, parsed = read(workdir, table)
    claims = {one["id"]: one for one in json.loads((workdir.results / "claims.json").read_text())}
    for claim in claims.values():
        assert claim["claim"] in parsed.text and claim["rule"] in parsed.text
    for words in (
        "On these documents: ",
        "For new documents too: ",
        "A second opinion that decides nothing",
        "Against h = 4, which no data chose",
        "One shared learning rate, ",
        "seeds agree in sign",
        "5 % more tokens",
        "fresh seeds: 'no difference of 0.01 nats/token' is within reach",
    ):
        assert words in " ".join(parsed.text.split()), words
    assert {"forest_C1", "forest_C2"} <= {path.stem for path in (workdir.report / "figures").iterdir()}
    forest = (workdir.report / "figures/forest_C1.svg").read_text()
    assert "new documents" in forest or "these documents" in forest
    about = claims["C1"]["about"]
    labels = [row["label"] for row in verdicts.write(evidence(workdir, table))[0].shown.rows]
    assert labels == [
        f"{about}, decides",
        "new documents" if about == "these documents" else "these documents",
        "bootstrap of seeds and files",
        f"against h = 4, {about}",
        f"tune loss at one rate, {claims['C1']['details']['shared_rate']['rate']:g},\nt over seeds",
    ]
    assert f"nats/token, 95 % interval, {about}" in parsed.text
    for axis in training.CURVES:
        assert (workdir.report / f"figures/curves_d016_{axis}.svg").exists()
    best = [row[-3] for row in parsed.tables["losses"][1:]]
    assert set(best) <= {"yes", "no"} and "yes" in best
    rows = {row[0]: row[1:] for row in parsed.tables["sensitivity"][1:]}
    tune = pd.read_parquet(workdir.results / "replicas.parquet")
    tune = tune[(tune.split == "tune") & (tune.stage == "tuning")].groupby(["cell", "learning_rate"]).loss.mean()
    cell = table.iloc[0]
    lower = tune[cell.cell, cell.learning_rate / 4] - tune[cell.cell, cell.learning_rate]
    assert rows[cell.cell][1] == f"{lower:+.4f}"


@pytest.mark.parametrize("correlation, words", [(0.4, "what pairing takes out"), (-0.26, "takes nothing out")])
def test_a_negative_correlation_takes_nothing_out(judged, correlation, words):
    verdict = c1_several_heads.judge(evidence(*judged[:2]))
    verdict.details["correlation"] = correlation
    (said,) = [line for line in c1_several_heads.shown(verdict).more if "correlate" in line]
    assert f"by {correlation:.2f}" in said and words in said


@pytest.mark.parametrize(
    "allowed, read_so_often, exploratory, wanted, unwanted",
    [
        (1, 1, False, ["was read once"], ["claims.looks", "exploratory"]),
        (3, 1, False, ["was read once", "claims.looks allows 3 readings", "at 98.33 %"], ["exploratory"]),
        (3, 2, False, ["C1 2 times, C2 once", "allows 3 readings"], ["was read once", "exploratory"]),
        (1, 2, True, ["C1 2 times", "more than claims.looks = 1 allows for C1: exploratory"], ["was read once"]),
    ],
)
def test_how_often_verdicts_were_read_is_true(tmp_path, allowed, read_so_often, exploratory, wanted, unwanted):
    few = {"d_model": (16,), "num_heads": (1, 4, 16), "tuning_seeds": (7, 8)}
    workdir, table = build(tmp_path, **few, claims={"looks": allowed})
    verdicts.write(evidence(workdir, table))
    looks = json.loads(workdir.looks.read_text())
    looks["C1"] += [{"seeds": [[8, 8]], "chosen": []}] * (read_so_often - 1)
    workdir.looks.write_text(json.dumps(looks))
    found = evidence(workdir, table)
    written = verdicts.write(found)
    assert written[0].exploratory == exploratory
    said = standing.reading(found, written)
    assert [words for words in wanted if words not in said] == [words for words in unwanted if words in said] == []
    assert " ".join(said.split()) in " ".join(Parsed(page.write(found, written).read_text()).text.split())


def test_without_tuning_seeds_nothing_is_said_to_be_chosen_apart(study):
    assert standing.reading(evidence(*study[:2]), []) == ""
    assert "was read once" not in study[3].text


def test_a_record_without_a_fingerprint_of_its_config_gives_a_page(tmp_path):
    workdir, table = build(tmp_path, d_model=(16,), num_heads=(1, 4), learning_rates=(0.008,))
    assert "Fingerprint of the config" in read(workdir, table)[1].text
    record = workdir.record()
    del record["config_sha256"]
    (workdir.path / "config.json").write_text(json.dumps(record))
    assert "Fingerprint of the config" not in read(workdir, table)[1].text


def test_the_headline_of_a_verdict_is_its_claim(study):
    """Nothing of the page's own stands beside the word of the verdict."""
    workdir, table, *_ = study
    found = evidence(workdir, table)
    kept = verdicts.write(found)
    others = [dataclasses.replace(verdict, claim=f"Another claim {verdict.id}") for verdict in kept]
    text = page.write(found, others).read_text()
    page.write(found, kept)
    headlines = [
        " ".join(found.split()) for found in re.findall(r"<h2><span class=.badge[^>]*>[^<]*</span>(.*?)</h2>", text)
    ]
    assert headlines == [f"{verdict.id} · {verdict.claim}" for verdict in others]
    assert not [verdict.claim for verdict in kept if verdict.claim in text]


def test_a_small_number_is_not_shown_as_zero():
    shown = {0.0: "+0.000", -0.00011: "−0.0001", 2e-5: "+0.00002", 0.0006: "+0.001", -0.1234: "−0.123", 12.0: "+12.000"}
    assert {value: showing.signed(value) for value in shown} == shown


def test_a_diverged_run_is_named_and_counted(study):
    workdir, table, _, parsed = study
    unigram = corpora.unigram_entropy(corpora.open_corpus(workdir.data))
    runs = evidence(workdir, table).losses.runs
    lost = runs[(runs.cell == "d032_h004") & (runs.init_seed == 1)]
    assert lost.status.tolist() == ["diverged"] and lost.counted.tolist() == [unigram]
    assert ["d032_h004", "0.008", "1", "1", "17", "yes"] in [row for rows in parsed.tables.values() for row in rows]
    assert "3 runs diverged" in parsed.text


def test_the_same_results_give_the_same_bytes(study):
    workdir, table, text, _ = study
    files = {path: path.read_bytes() for path in workdir.report.rglob("*.*")}
    assert read(workdir, table)[0] == text
    assert files == {path: path.read_bytes() for path in workdir.report.rglob("*.*")}


def test_the_printed_command_gives_the_same_config(study):
    workdir, *_ = study
    words = shlex.split(making.command(workdir.record()).replace("\\\n", " "))
    config, *_ = main.parse(words[2:])
    assert json.loads(json.dumps(dataclasses.asdict(freeze(config)))) == workdir.record()["config"]


@pytest.mark.parametrize(
    "changes, sentences",
    [
        ({"learning_rates": (0.01,)}, ["One rate was tried"]),
        ({"learning_rates": (0.008, 0.016)}, ["Best at the lowest rate tried"]),
        ({"learning_rates": (0.004, 0.008, 0.016)}, ["best rate lies inside"]),
        ({"d_model": (16, 32), "num_heads": (1, 2), "d_k": (4, 8)}, ["Attention parameters differ"]),
    ],
)
def test_sentences_fit_the_study(tmp_path, changes, sentences):
    workdir, table = build(tmp_path, **{"d_model": (16,), "num_heads": (1, 4, 16), **changes})
    found = evidence(workdir, table)
    said = [*cost.budget_notes(found.cells), *rates.rate_notes(found)]
    assert [sentence for sentence in sentences if sentence not in " ".join(said)] == []


CROSSED = ["d_k = 8", "so they are too narrow", "that is for claim C9"]


@pytest.mark.parametrize(
    "changes, sentences",
    [
        ({"init_seeds": (0,), "learning_rates": (0.01,), "only": ["d016_h001"], "timing": False, "curves": False}, []),
        (
            {"num_heads": (1, 4), "lost": [(None, None, None)]},
            ["Every run of d016_h001 and of d016_h004 diverged"],
        ),
        ({"num_heads": (1, 4), "only": ()}, ["No cell has been judged yet", "2 pending"]),
        ({"d_model": (32,), "num_heads": (1, 2), "d_k": (4, 8), "seeds": "crossed", "data_seeds": (5, 6)}, CROSSED),
    ],
    ids=["one run", "all diverged", "nothing yet", "crossed seeds, d_k fixed"],
)
def test_odd_studies_give_a_page(tmp_path, changes, sentences):
    workdir, table = build(tmp_path, **{"d_model": (16,), "init_seeds": (0, 1), **changes})
    _, parsed = read(workdir, table)
    text = " ".join(parsed.text.split())
    assert [sentence for sentence in sentences if sentence not in text] == []


def test_depths_are_not_merged(tmp_path):
    """One layer and four: each depth has its own line, and its own h = 1 to be compared with."""
    workdir, table = build(tmp_path, d_model=(16,), num_heads=(1, 4), num_layers=(1, 4))
    _, parsed = read(workdir, table)
    found = evidence(workdir, table)
    pairs = losses.pairs(found)
    assert len(pairs) == 2 * 3 and pairs.groupby("cell").size().to_dict() == {"d016_h004_L01": 3, "d016_h004_L04": 3}
    runs = found.losses.runs.set_index(["cell", "init_seed"]).counted
    for row in pairs.itertuples():
        single = runs[row.cell.replace("h004", "h001"), row.init_seed]
        assert row.difference == pytest.approx(row.counted - single)
    for name in ("loss_num_heads_d016", "difference_num_heads", "rates_d016", "curves_d016_tokens", "cost_step_ms"):
        drawn = (workdir.report / f"figures/{name}.svg").read_text()
        assert "1 layer" in drawn and "1 layers" not in drawn and "4 layers" in drawn, name
    times = {row[0]: row[11] for row in parsed.tables["costs"][1:]}
    step = table.set_index("cell").step_ms
    assert times["d016_h004_L04"] == f"{step['d016_h004_L04'] / step['d016_h001_L04']:.2f} ×"
    assert times["d016_h004_L01"] == f"{step['d016_h004_L01'] / step['d016_h001_L01']:.2f} ×"


def test_a_diverged_run_does_not_blur_what_may_be_the_best(tmp_path):
    clear = {"d_model": (16,), "num_heads": (1, 4, 16), "init_seeds": tuple(range(6)), "noise": 0.0005}
    workdir, table = build(tmp_path, **clear, lost=[("d016_h004", None, 0), ("d016_h016", None, None)])
    found = losses.may_be_best(evidence(workdir, table))
    assert found == {"d016_h001": False, "d016_h004": True, "d016_h016": False}


@pytest.mark.parametrize("by", ["d_k", "num_heads"])
def test_what_may_be_the_best_is_asked_of_cells_that_differ_in_one_thing(tmp_path, by):
    """One number of heads at three widths, and one width at three numbers of heads: the first of each is far worse."""
    grid = {"d_k": {"num_heads": (4,), "d_k": (1, 4, 16)}, "num_heads": {"num_heads": (1, 4, 16), "d_k": (4,)}}[by]
    worse = dict(zip((1, 4, 16), (0.5, 0.0, 0.001), strict=True))
    few = {"d_model": (64,), "init_seeds": tuple(range(6)), "noise": 0.003, "learning_rates": (0.008,)}
    workdir, table = build(tmp_path, **few, **grid, curve=lambda model: 2 + worse[getattr(model, by)])
    found = losses.may_be_best(evidence(workdir, table))
    _, parsed = read(workdir, table)
    drawn = {path.stem for path in (workdir.report / "figures").glob("loss_*")}
    assert drawn == {f"loss_{by}_d064"}  # nothing to see where one value has all marks
    cost = (workdir.report / "figures/cost_step_ms.svg").read_text()
    assert {"d_k": "head width", "num_heads": "number of heads"}[by] in cost and cost.count(">d_model 64, ") == 1
    assert {getattr(cell, by): found[cell.cell] for cell in table.itertuples()} == {1: False, 4: True, 16: True}


def test_reasons_are_shown_escaped_and_states_told_apart(tmp_path):
    workdir, table = build(tmp_path, d_model=(16,), only=("d016_h001",), learning_rates=(0.01,))
    reason = "Fault <script>alert('x')</script> & " + "word" * 300
    workdir.cell("d016_h002").write_status("failed", reason)
    workdir.cell("d016_h004").write_status("out_of_memory", "needs 9 GiB of 8 GiB")
    workdir.cell("d016_h008").write_status("running")
    text, parsed = read(workdir, table)
    assert "<script" not in text
    rows = {row[0]: row[1:] for rows in parsed.tables.values() for row in rows if len(row) == 3}
    assert rows["d016_h002"] == ["failed", reason]
    assert rows["d016_h004"] == ["ran out of memory", "needs 9 GiB of 8 GiB"]
    assert "1 begun, not finished: d016_h008." in parsed.text and "1 pending: d016_h016." in parsed.text


def test_many_cells_with_ten_seeds_stay_small(tmp_path):
    workdir, table = build(tmp_path, d_model=(64, 128), init_seeds=tuple(range(10)), learning_rates=(0.008,))
    assert len(table) == 15
    text, _ = read(workdir, table)
    assert len(text.encode()) < 700_000
    page.write(evidence(workdir, table[:0]), [])
    assert list((workdir.report / "figures").iterdir()) == []


def test_importing_the_page_does_not_import_matplotlib():
    code = "import sys; from eval.report import page; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
