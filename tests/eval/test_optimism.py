"""No optimism: tuning, the choice of h* and the judging of C1 on made-up runs of cells that are all alike."""

import dataclasses
import json
import math
import os

import numpy as np
import pandas as pd
import pytest

from configs import default
from eval import tables
from eval.judge import intervals, stats
from eval.judge.claims import c1_several_heads
from eval.judge.evidence import Evidence
from eval.judge.paired import decision
from tests.eval.workdirs import TEXT
from train import grid
from train.config import freeze
from train.data import corpora
from train.files import write_table
from train.run import packs
from train.study import tuning
from train.workdir import Workdir

TRIALS, FILES, TOKENS = 40, 25, 1000
DOCUMENTS = [f"{file}.txt@0" for file in range(FILES)]
OF_SEED, REST = 0.02, 0.02  # standard deviations
TUNING, FRESH = (100, 101), (0, 1, 2)


class Study:
    """A study of h = 1, 2, 4, 8, 16 at three rates without any difference in merit.

    The loss of a run on a file: a part of its seed, one of the run, one of cell and file that all seeds share, and
    noise.

    Args:
      of_run, of_document: standard deviations of those parts.
      tuning_seeds: without any, the seeds that choose are judged.
      tune_is_test: the `test` files are the `tune` files again.
    """

    def __init__(self, folder, corpus, rng, of_run, of_document, tuning_seeds=TUNING, tune_is_test=False):
        values = default.get_config().to_dict()
        values["grid"].update({"d_model": (16,), "head_ratio": 2, "learning_rates": (0.004, 0.008, 0.016)})
        values["grid"].update({"tuning_seeds": tuning_seeds, "init_seeds": FRESH, "extensions": 0})
        values["data"]["source"] = f"file:{folder / 'text.txt'}"
        self.config, self.corpus, self.rng, self.of_run = freeze(values), corpus, rng, of_run
        self.workdir = Workdir(folder)
        self.cells = grid.cells_of(self.config, corpora.VOCAB_SIZE)
        self.of_seed = {seed: rng.normal(0, OF_SEED) for seed in (*TUNING, *FRESH)}
        names = [cell.name for cell in self.cells]
        of_files = [{name: rng.normal(0, of_document, FILES) for name in names} for _ in range(2)]
        self.of_files = {"tune": of_files[0], "test": of_files[0 if tune_is_test else 1]}
        for cell in self.cells:
            self.workdir.cell(cell.name).path.mkdir(parents=True, exist_ok=True)
            self.workdir.cell(cell.name).write_packs([])
            self.train(cell, cell.replicas, ("tune",) if tuning_seeds else ("tune", "test"))
        if tuning_seeds:
            chosen = tuning.read(self.config, self.workdir, self.cells, tuning.by_loss(self.config, corpus)).chosen
            for cell in self.cells:
                fresh = grid.replicas([chosen[cell.name]], grid.judged_seeds(self.config))
                self.train(cell, fresh, ("tune", "test"))

    def train(self, cell, replicas, splits) -> None:
        folder, rows, tune_losses = self.workdir.cell(cell.name), [], []
        index, (first, last) = len(folder.packs()), self.corpus.splits["tune"]
        for run in replicas:
            level = 2 + self.of_seed[run.init_seed] + self.rng.normal(0, self.of_run)
            for split in splits:
                losses = level + self.of_files[split][cell.name] + self.rng.normal(0, REST, FILES)
                if split == "tune":
                    tune_losses.append(float(losses.mean() * self.corpus.num_tokens[first:last].sum()))
                sizes = {"document": DOCUMENTS, "tokens": TOKENS, "bytes": TOKENS, "loss_sum": TOKENS * losses}
                rows.append(pd.DataFrame({"replica": run.name, **dataclasses.asdict(run), "split": split, **sizes}))
        trained = {
            "step": 400,
            "checkpoint": "made up",
            "compile_seconds": 1.0,
            "memory_bytes": 1,
            "tune_losses": tune_losses,
        }
        trained["diverged_at"] = [-1] * len(replicas)
        record = packs.Pack(index, cell.model, replicas, "scan", {"device": "cpu"}).as_json()
        folder.write_packs([*folder.packs(), {**json.loads(json.dumps(record)), "trained": trained}])
        write_table(folder.measured("documents", index), pd.concat(rows, ignore_index=True))
        folder.write_status("done")

    def reported(self) -> float:
        """The effect that C1 reports."""
        table = tables.write_tables(self.workdir, self.cells, self.config, self.corpus)
        verdict = c1_several_heads.judge(Evidence(self.workdir, self.config, self.corpus, table))
        assert verdict.n == len(FRESH) and len(verdict.parts) == 1
        return verdict.effect


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts, error",
    [
        ({"of_run": 0.03, "of_document": 0.02}, {"tuning_seeds": ()}),
        ({"of_run": 0.006, "of_document": 0.05}, {"tune_is_test": True}),
    ],
    ids=["tuning seeds", "tune documents"],
)
def test_the_whole_path_is_not_optimistic(parts, error, tmp_path, monkeypatch):
    """... and would be, were the tuning seeds judged, or the tune documents."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # only time is saved: none of the three enters an effect
    monkeypatch.setattr(intervals, "bootstrap", lambda *_: (0.0, 0.0))
    monkeypatch.setattr(stats, "seeds_to_decide", lambda *_: None)
    (tmp_path / "text.txt").write_text(TEXT)
    config = default.get_config()
    config.data.source = f"file:{tmp_path / 'text.txt'}"
    corpus = corpora.write_corpus(freeze(config.to_dict()).data, tmp_path / "data")
    found = []
    for changes in ({}, error):
        rng = np.random.default_rng(0)
        if changes:  # the guard that keeps a study from this error is off
            monkeypatch.setattr(decision, "missing", lambda *_: [])
        effects = [Study(tmp_path, corpus, rng, **parts, **changes).reported() for _ in range(TRIALS)]
        found.append(np.mean(effects) / (np.std(effects) / math.sqrt(TRIALS)))
        print(f"\n{changes or 'as it is'}: {np.mean(effects):+.4f} nats/token, {found[-1]:+.1f} standard errors")
    assert abs(found[0]) < 2 and found[1] > 3
