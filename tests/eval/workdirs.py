"""Workdirs as a study leaves them, with made-up losses."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd

from configs import default, relations
from eval.tables import write_tables
from train import grid
from train.config import StudyConfig, freeze
from train.data import corpora, sources
from train.files import write_json, write_table, write_text
from train.grid import Replica
from train.run import feed, packs
from train.study import tuning
from train.workdir import CellFolder, Workdir

TEXT = "".join(np.random.default_rng(0).choice(list("abcdefghijklmnopqrstuvwxyz\n"), 120_000))
ENVIRONMENT = {"threads": 2, "xla_flags": "", "jaxlib": "0.10", "device": "cpu", "devices": 1}
CAP = 10_000  # of a study of doses


@dataclasses.dataclass
class MadeUp:
    """What shapes the losses.

    Attributes:
      lost: (cell, learning rate, init seed) of runs that diverged; None matches all.
      files: source files that the documents of each split are from.
      curve: loss of a model at its best rate, from its ModelConfig.
      noise: standard deviation between the runs of a cell.
    """

    lost: tuple = ()
    files: int = 1
    timing: bool = True
    curves: bool = True
    noise: float = 0.005
    curve: object = lambda model: 2 + 0.01 * (math.log2(model.num_heads) - 2) ** 2 - 0.002 * model.d_model


def build(folder, only=None, claims=(), **changes):
    """(workdir, cells table) of a study with tuning seeds or, by default, without.

    Args:
      only: cells that are evaluated; the others are pending.
      claims: config.claims fields.
      changes: fields of MadeUp and of config.grid.
    """
    names = [field.name for field in dataclasses.fields(MadeUp)]
    made_up = MadeUp(**{name: changes.pop(name) for name in names if name in changes})
    values = default.get_config().to_dict()
    values["grid"].update(
        {"d_model": (16, 32), "head_ratio": 2, "learning_rates": (0.004, 0.008, 0.016), "init_seeds": (0, 1, 2)}
    )
    values["grid"].update({"tuning_seeds": (), "extensions": 0})
    values["grid"].update(changes)
    values["claims"].update(claims)
    (folder / "text.txt").write_text(TEXT)
    values["data"]["source"] = f"file:{folder / 'text.txt'}"
    config, workdir = freeze(values), Workdir(folder / "run")
    corpus = corpora.write_corpus(config.data, workdir.data)
    workdir.write_record(config, "cpu", corpus.fingerprint)
    cells = grid.cells_of(config, corpora.VOCAB_SIZE)
    random = np.random.default_rng(0)
    shared = random.normal(0, 0.02, 1000)
    for cell in cells:
        if only is None or cell.name in only:
            _finish(workdir, cell, config, corpus, random, shared, made_up)
    return workdir, write_tables(workdir, cells, config, corpus)


def _finish(workdir: Workdir, cell: grid.Cell, config: StudyConfig, corpus, random, shared, made_up: MadeUp) -> None:
    folder = workdir.cell(cell.name)
    splits = ("tune",) if config.grid.tuning_seeds else ("tune", "test")
    _train(folder, cell, cell.replicas, splits, corpus, random, shared, made_up)
    if config.grid.tuning_seeds:
        chosen = tuning.read(config, workdir, (cell,), tuning.by_loss(config, corpus)).chosen[cell.name]
        fresh = grid.replicas((chosen,), grid.judged_seeds(config))
        _train(folder, cell, fresh, ("tune", "test"), corpus, random, shared, made_up, mirror=True)
    stopped = [step for record in folder.packs() for step in record["trained"]["diverged_at"]]
    folder.write_status("diverged" if all(step >= 0 for step in stopped) else "done")
    model = cell.model
    if made_up.timing:
        write_json(
            folder.timing,
            {"step_ms": 8.0 * model.num_layers + model.d_model / 16 + model.num_heads, "tokens_per_second": 1e5},
        )


def _train(folder: CellFolder, cell, replicas, splits, corpus, random, shared, made_up: MadeUp, mirror=False) -> None:
    """A pack of runs, each document's loss that of its run and, among several files, a part of file and h.

    With `mirror` their tune losses put the cells in the opposite order, so a choice that reads them errs.
    """
    model = dataclasses.replace(cell.model, attention="reference")
    index = len(folder.packs())
    rows, lines, tune_losses = [], [], []
    first, last = corpus.splits["tune"]
    for run in replicas:
        level = made_up.curve(model) + 0.02 * math.log2(run.learning_rate / 0.008) ** 2 + shared[run.init_seed]
        for split in splits:
            loss = (4 - level if mirror and split == "tune" else level) + random.normal(0, made_up.noise)
            if split == "tune":
                tune_losses.append(float(loss * corpus.num_bytes[first:last].sum()))
            for file in range(made_up.files):
                tokens = 1000 + 10 * file
                own = 0.05 * math.sin(file * model.num_heads) if made_up.files > 1 else 0
                sizes = {"document": f"{file}.txt@0", "tokens": tokens, "bytes": tokens}
                sizes["loss_sum"] = tokens * (loss + own)
                rows.append({"replica": run.name, **dataclasses.asdict(run), "split": split, **sizes})
        for step in range(0, 400, 10):
            lines.append({"pack": index, "step": step, "replica": run.name, "loss": level + 4 / (step / 20 + 1)})
    trained = {
        "step": 400,
        "checkpoint": "made up",
        "compile_seconds": 4.5,
        "memory_bytes": 20 * 2**20,
        "tune_losses": tune_losses,
    }
    trained["diverged_at"] = [17 if _lost(cell, run, made_up) else -1 for run in replicas]
    record = packs.Pack(index, model, replicas, "scan", ENVIRONMENT).as_json()
    folder.write_packs([*folder.packs(), {**record, "trained": trained}])
    write_table(folder.measured("documents", index), pd.DataFrame(rows))
    if made_up.curves:
        with open(folder.metrics, "a") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))


def _lost(cell: grid.Cell, run: grid.Replica, made_up: MadeUp) -> bool:
    found = (cell.name, run.learning_rate, run.init_seed)
    return any(
        all(wanted in (None, value) for wanted, value in zip(pattern, found, strict=True)) for pattern in made_up.lost
    )


def dose_workdir(folder, steps, heads=(1, 8), doses=(1, 6), stages=("tune", "fresh"), **changes):
    """A study whose fresh run of seed s takes steps(heads, dose, s), capped."""
    config = relations.get_config()
    config.grid.num_heads, config.dose.relations = heads, doses
    for name, value in changes.items():
        section, field = name.split("__")
        config[section][field] = value
    config = freeze(config.to_dict())
    cells = grid.cells_of(config, sources.vocab_size(config.data))
    workdir = Workdir(folder)
    for cell in cells:
        place, lines = workdir.cell(cell.name), []
        for stage in stages:
            runs, outcomes = [], []
            start = grid.DRAWN if stage in ("tune", "fresh") else stage
            for seed in (100, 101) if stage == "tune" else range(6):
                taken = steps(cell.model.num_heads, cell.dose, seed)
                runs.append(Replica(0.003, seed, seed, start))
                reached = taken < CAP
                outcomes.append({"steps": min(taken, CAP), "why": "reached" if reached else "capped",
                                 "loss": 0.04 if reached else 0.3 + seed / 100})  # fmt: skip
                for step in range(50, min(taken, CAP) + 1, 500):
                    own = {"P1": 0.5, "P11": 0.7}
                    lines.append({"pack": len(place.packs()), "step": step, "replica": runs[-1].name, "loss": 0.6,
                                  "relations": own})  # fmt: skip
            pack = packs.Pack(len(place.packs()), cell.model, tuple(runs), "scan", ENVIRONMENT, dose=cell.dose)
            trained = {"step": CAP, "checkpoint": "made up", "outcomes": outcomes, "diverged_at": [-1] * len(runs)}
            place.write_packs([*place.packs(), {**pack.as_json(), "trained": trained}])
        write_text(place.looks, "".join(json.dumps(line) + "\n" for line in lines))
    workdir.write_record(config, "cpu", feed.fingerprint(config, None))
    return workdir, cells, config
