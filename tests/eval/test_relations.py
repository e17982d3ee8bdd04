"""Losses by relation against plain sums over the answers of each document."""

import dataclasses
import io
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from configs import smoke
from eval import summary, tables
from eval.judge.evidence import Evidence
from eval.measure import relations
from eval.report import page
from eval.restore import Restored
from main import main
from mha.transformer import Transformer
from tests.eval import workdirs
from train import grid
from train.config import freeze
from train.data import corpora
from train.data.relations import parse
from train.losses.documents import document_losses
from train.run import packs, step


def frozen(**fields):
    config = smoke.get_config()
    config.grid.d_model, config.grid.num_heads, config.grid.tuning_seeds = (16,), (4,), ()
    config.grid.init_seeds = (0, 1)
    config.model.num_layers = 1
    config.data.source, config.data.max_bytes, config.data.noise = "relations", 64 * 200, 0.1
    config.eval.batch_size = 4
    for name, value in fields.items():
        setattr(config.data, name, value)
    return freeze(config.to_dict())


def made(config, folder):
    """A pack with random weights, large enough for decided answers, and the corpus."""
    corpus = corpora.write_corpus(config.data, folder)
    (cell,) = grid.cells_of(config, corpus.vocab_size)
    model = dataclasses.replace(cell.model, attention="reference")
    pack = packs.Pack(0, model, cell.replicas, "scan", {})
    params = step.init(model, config.train, jnp.arange(2, dtype=jnp.uint32)).params
    return pack, jax.tree.map(lambda leaf: 2 * leaf, params), corpus


@pytest.mark.parametrize(("which", "demand"), [("3,B,E", "joint"), pytest.param("4", "switch", marks=pytest.mark.slow)])
def test_losses_are_the_plain_sums(which, demand, tmp_path):
    config = frozen(relations=which, demand=demand)
    pack, params, corpus = made(config, tmp_path)
    losses_by_document = document_losses(pack.model, pack.replica_map, params, corpus, "test", config.eval)
    names = [replica.name for replica in pack.replicas]
    needed = {"losses": pd.DataFrame({"replica": names, "loss_sum": losses_by_document.sum(axis=1)})}
    restored = Restored("made_up", pack, params, np.full(2, -1), 0, dataclasses.asdict(config), corpus)
    table = relations.measure_cell([restored], "test", relations.settings(config), needed)
    gold, (first, last) = corpus.gold, corpus.splits["test"]
    tokens = np.asarray(corpus.tokens_of("test")).reshape(last - first, 64).astype(int)
    bits = np.full((corpus.vocab_size, gold.answer_bits.shape[1]), -1)
    bits[: len(gold.answer_bits)] = gold.answer_bits
    for replica, of_replica in enumerate(table.groupby("replica")):
        own = jax.tree.map(lambda leaf, replica=replica: leaf[replica], params)
        logits, _ = Transformer(pack.model).apply({"params": own}, jnp.asarray(tokens[:, :-1]))
        p = np.asarray(jax.nn.softmax(logits), np.float64)
        sums = {name: [] for name in (relations.ANSWERS, relations.RELATIONAL, *gold.relations)}
        floors = {name: [] for name in sums}
        mine = np.flatnonzero((gold.questions.document >= first) & (gold.questions.document < last))
        by_answer = {}
        for row in mine:
            document, query, relation, bit, log_p = (column[row] for column in gold.questions)
            by_answer.setdefault((document - first, query), []).append((gold.relations[relation], bit, log_p))
        for (document, query), asked in by_answer.items():
            target, here = tokens[document, query + 1], p[document, query]
            family = [word for word in range(corpus.vocab_size) if ((bits[word] < 0) == (bits[target] < 0)).all()]
            family = [word for word in family if bits[word, 0] >= 0]
            right = {bit: {word for word in family if bits[word, bit] == bits[target, bit]} for _, bit, _ in asked}
            for name, bit, log_p in asked:
                sums[name].append(-np.log(sum(here[word] for word in right[bit])))
                floors[name].append(-log_p)
            every = set.intersection(*right.values())
            sums[relations.RELATIONAL].append(-np.log(sum(here[word] for word in every)))
            floors[relations.RELATIONAL].append(-sum(log_p for *_, log_p in asked))
            sums[relations.ANSWERS].append(-np.log(here[target]))
            floors[relations.ANSWERS].append(-gold.log_p.reshape(-1, 64)[first + document - gold.first, query + 1])
        found = of_replica[1].set_index("relation")
        for name in sums:
            count = len(mine) if name == relations.RELATIONAL else len(sums[name])
            assert found.questions[name] == count > 0 and found.dropped[name] == 0
            np.testing.assert_allclose(found.loss[name], np.sum(sums[name]) / count, rtol=2e-5)
            np.testing.assert_allclose(found.floor[name], np.sum(floors[name]) / count, rtol=1e-12, atol=1e-15)
            np.testing.assert_allclose(found.excess[name], found.loss[name] - found.floor[name], atol=1e-12)
        np.testing.assert_allclose(found.loss[relations.TOKENS], losses_by_document[replica].sum() / tokens[:, 1:].size)


def test_questions_whose_source_is_cut_off_are_dropped_and_counted(tmp_path):
    """Windows of 20 of documents of 64: each answer that is kept has all its sources in its window."""
    config = frozen(relations="6", seq_len=20)
    corpus = corpora.write_corpus(config.data, tmp_path)
    windows = corpora.eval_windows(corpus, "test", 20)
    found, questions, dropped = relations.asked(corpus, windows)
    assert (found.place >= 11).all() and (found.place < 20).all() and len(found.place)
    asked = windows.tokens[found.window, found.place]
    kinds = np.array(["query" in kind for kind in _kinds(config)])
    assert kinds[asked].all()
    first, last = corpus.splits["test"]
    inside = (corpus.gold.questions.document >= first) & (corpus.gold.questions.document < last)
    assert dropped.sum() + len(questions) == inside.sum() and dropped.min() > 0


def _kinds(config):
    return parse.language(config.data).vocabulary.kinds


def test_a_loss_below_the_best_shortcut_is_marked(tmp_path):
    """Family P at offset 1: the bag of the last four words leaves .541 nats, whatever the floor; one cell's mean lies
    below it and one's above, and what is of no single relation has no shortcut."""
    workdir, table = workdirs.build(
        tmp_path, claims={"launches": 0}, d_model=(16,), num_heads=(1, 2), init_seeds=(0, 1)
    )
    study = freeze(workdir.record()["config"])
    spoken = dataclasses.replace(study.data, source="relations", relations="1")
    planted = dict(zip(table.cell, (0.50, 0.58), strict=True))
    (rule,) = relations._rules(parse.language(spoken), 0)
    for cell, excess in planted.items():
        found = pd.read_parquet(workdir.cell(cell).measured("documents", 0))
        runs = found[["replica", "learning_rate", "init_seed", "data_seed", "split"]].drop_duplicates()
        losses = {relations.TOKENS: 0.01, relations.RELATIONAL: 0.02, "P1": excess}
        rows = [runs.assign(relation=name, floor=0.0, excess=value, loss=value) for name, value in losses.items()]
        rows = pd.concat(rows, ignore_index=True)
        rows = rows.assign(shortcut=np.where(rows.relation == "P1", rule.best_excess, np.nan))
        lost = (rows.relation == "P1") & (rows.init_seed == 1) & (rows.split == "tune")
        rows.loc[lost, ["loss", "excess"]] = np.nan
        relations.beside_shortcuts(rows).to_parquet(workdir.cell(cell).measured("relations"))
    cells = grid.cells_of(study, corpora.VOCAB_SIZE)
    corpus = corpora.open_corpus(workdir.data)
    tables.write_tables(workdir, cells, dataclasses.replace(study, data=spoken), corpus)
    written = pd.read_csv(workdir.results / "relations.csv")
    alone = written.relation == "P1"
    assert written.shortcut[~alone].isna().all() and written.below_shortcut[~alone].isna().all()
    of_relation = written[alone]
    np.testing.assert_allclose(of_relation.shortcut, 0.541, atol=0.01)
    below = (of_relation.cell == table.cell[0]) & of_relation.excess.notna()
    assert of_relation.below_shortcut.tolist() == below.tolist() and 0 < below.sum() < len(below) / 2

    shown = tables.excess(workdir, table)
    assert list(shown.index) == [tables.FLOOR, tables.SHORTCUT, *table.cell]
    html = page.write(Evidence(workdir, study, corpus, table), []).read_text()
    html = html[html.index('id="relations"') :].split("</table>")[0]
    assert re.findall("<strong>(.*?)</strong>", html) == ["✓ 0.500"] and "<td>0.580</td>" in html
    assert "<th>best shortcut</th>" in html and f"<td>{of_relation.shortcut.iloc[0]:.3f}</td>" in html
    console = Console(file=io.StringIO(), width=100)
    summary.show_relations(console, workdir, table)
    assert "best shortcut" in console.file.getvalue() and "nan" not in console.file.getvalue()


@pytest.mark.slow
def test_a_study_of_a_language(tmp_path, capsys):
    """Trained, evaluated, reported: tables, terminal and page have the floor and each relation's loss above it."""
    workdir = tmp_path / "run"
    config = "--config=configs/smoke.py --config.data.source=relations --config.data.max_bytes=30000".split()
    config += "--config.data.relations=2,D --config.grid.num_heads=1 --config.claims.launches=0".split()
    assert main([*config, f"--workdir={workdir}"]) == 0
    said = capsys.readouterr().out
    assert "Test loss above its floor" in said and "relational bits" in said
    page = (workdir / "report" / "index.html").read_text()
    assert 'id="relations"' in page and "a word of the language" in " ".join(page.split())
    table = pd.read_csv(workdir / "results" / "relations.csv")
    assert set(table.relation) == {"every token", "answers", "relational bits", "P1", "P2", "D"}
    assert np.allclose(table.loss - table.floor, table.excess) and (table.floor > -1e-12).all()
    of_relation = table.relation.isin(["P1", "P2", "D"])
    assert (table.shortcut.notna() == of_relation).all() and table[of_relation].shortcut.between(0.2, 0.7).all()
    replicas = pd.read_csv(workdir / "results" / "replicas.csv")
    tokens = table[table.relation == "every token"].merge(replicas, on=["init_seed", "split", "learning_rate"])
    assert len(tokens) and np.allclose(tokens.loss_x, tokens.loss_y)
    assert json.loads((workdir / "data" / "corpus.json").read_text())["vocab_size"] == 162 + 120
