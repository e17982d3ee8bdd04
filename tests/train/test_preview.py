"""--mode=data: what stands in the terminal is what the corpus has."""

import dataclasses
import io
import re

import numpy as np
import pytest
from rich.console import Console

import main
from configs import default, relations, relations_sanity
from tests.data import data_config
from tests.train.test_conllu import many
from train.config import DataConfig, StudyConfig, freeze
from train.data import corpora
from train.data.relations import language as languages
from train.data.relations import parse, shortcuts
from train.study import preview


def printed(config: DataConfig, width: int = 100) -> str:
    return shown(dataclasses.replace(freeze(default.get_config().to_dict()), data=config), width)


def shown(config: StudyConfig, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    preview.show(console, config)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    config = data_config(source="relations", relations="4", max_bytes=64 * 300)
    return config, corpora.write_corpus(config, tmp_path_factory.mktemp("data"))


def test_arcs_stand_below_the_words_that_they_join():
    console = Console(file=io.StringIO(), width=40)
    words = ["<s>", "one", "two", "three", "?", "=1", "four", "?", "=0"]
    links = [(4, 1, 0), (4, 3, 0), (7, 2, 1), (7, 6, 1), (4, 8, 2), (1, 3, 2)]
    preview.draw(console, words, links, ("A", "B", "C"), {5})
    assert [line.rstrip() for line in console.file.getvalue().splitlines()] == [
        "<s> one two three ? =1",
        "     ▲────────┘ C",
        "     └────────┴───┘ A",
        "                  ┘ (=0 below) C",
        "four ? =0",
        "─┴───┘ (two above) B",
    ]


def test_documents_links_floors_splits_and_fingerprint(language, monkeypatch):
    config, corpus = language
    monkeypatch.setattr(shortcuts, "TOKENS", 50_000)
    text = printed(config)
    vocabulary = parse.language(config).vocabulary
    first = corpus.splits["tune"][0]
    for document in range(first, first + preview.DOCUMENTS):
        words = [vocabulary.words[token] for token in corpus.tokens[document * 64 : document * 64 + 64]]
        assert all(word in text for word in words)
    arcs = [line.split()[-1] for line in text.splitlines() if "┘" in line]
    links = corpus.gold.links
    shown = (links.document >= first) & (links.document < first + preview.DOCUMENTS)
    assert sorted(arcs) == sorted(corpus.gold.relations[index] for index in links.relation[shown])
    assert corpus.fingerprint in text
    for split, (begin, end) in corpus.splits.items():
        assert re.search(rf"{split} +{end - begin} +{(end - begin) * 63:,} ", text)
    assert "162" in text and "word of the language" in text


def test_walks_show_their_links_on_the_words_that_fit(tmp_path):
    config = data_config(source="walk", noise=0.1, max_bytes=64 * 200)
    text, corpus = printed(config), corpora.write_corpus(config, tmp_path)
    assert "of 17;" in text and "word of the language" in text and corpus.fingerprint in text
    links, first = corpus.gold.links, corpus.splits["tune"][0]
    shown = links.document < first + preview.DOCUMENTS
    shown &= (links.query < preview.WORDS) & (links.query != links.key)
    queries = set(
        zip(*(column[shown].tolist() for column in (links.document, links.query, links.relation)), strict=True)
    )
    arcs = [line.split()[-1] for line in text.splitlines() if "┘" in line]
    assert sorted(arcs) == sorted(corpus.gold.relations[relation] for *_, relation in queries)


@pytest.mark.parametrize("family", ["P", "K"])
def test_a_study_of_doses_shows_the_languages_that_its_runs_read(family):
    """Those of each dose at the first judged seed, on the documents that its looks are taken on, and no splits."""
    config = relations.get_config() if family == "P" else relations_sanity.get_config("kinds")
    if family == "K":
        config.data.relations = "A,B,C,D,E,F,G"
    config.grid.init_seeds, config.dose.relations, config.dose.documents = (9, 1), (1, 3), 40
    config = freeze(config.to_dict())
    text = shown(config, 120)
    row, rows = (3, 6) if family == "P" else (2, 7)
    parts = re.split(r"(?m)^Dose ", text)[1:]
    for dose, part in zip((1, 3), parts, strict=True):
        spoken = parse.spoken(config.data, dose, 9)
        assert part.startswith(f"{dose}, seed 9 (row {row} of {rows}): {', '.join(spoken.relations)}\n")
        held = languages.documents(spoken, 9, 40, 42)
        lines = [line for line in part.splitlines() if line[:1] not in ("", " ", "─", "└")]
        texts = [" ".join(spoken.vocabulary.words[token] for token in tokens) for tokens in held.tokens]
        assert " ".join(" ".join(lines[1:]).split()).startswith(" ".join(texts))
        arcs = [line.split()[-1] for line in part.splitlines() if "┘" in line]
        asked = {(*row,) for row in zip(held.links.document, held.links.query, held.links.relation, strict=True)}
        assert sorted(arcs) == sorted(spoken.relations[relation] for *_, relation in asked)
        for relation in shortcuts.table(spoken, 9):
            assert re.search(rf"(?m)^ *{relation.name} +{relation.share:.0%} +\.000 ", part)
    said = " ".join(text.split())
    assert "40 documents are held out for the looks of tune and 40 for those of test" in said
    assert "without end" in said and "windows of" not in text and "Fingerprint" not in text


def test_text_sources(tmp_path):
    (tmp_path / "text.txt").write_text("A sentence that is shown. " * 4000)
    text = printed(data_config(source=f"file:{tmp_path}/text.txt"))
    corpus = corpora.write_corpus(data_config(source=f"file:{tmp_path}/text.txt"), tmp_path / "data")
    assert "A sentence that is shown. A sentence" in text and "a token is a byte" in text and corpus.fingerprint in text


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_gold_text(tokenizer, tmp_path):
    """The arcs of a document's first words, what the source said, and how many links the windows cut."""
    (tmp_path / "gold.conllu").write_text(many() + "1\tbroken\n\n")
    config = data_config(source=f"conllu:{tmp_path}/gold.conllu", tokenizer=tokenizer, seq_len=48, vocab_size=300)
    corpus, text = corpora.write_corpus(config, tmp_path / "data"), printed(config)
    assert all(note in " ".join(text.split()) for note in corpus.notes)
    # 40 words are five sentences of eight, each with seven heads; the fifth and sixth words stand without a space.
    document = corpus.splits["tune"][0]
    of_first = text.split("Document ")[1]
    assert len(re.findall(r"[┘▲]", of_first)) > 25 and corpus.names[document] in of_first
    total = ((corpus.gold.links.document >= document) & (corpus.gold.links.document < corpus.splits["tune"][1])).sum()
    dropped = re.search(rf"tune: {total} links; (\d+) dropped", text)
    assert 0 < int(dropped[1]) < total


def test_the_mode_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("A sentence that is shown. " * 4000)
    assert main.main(["--mode=data", "--config.data.source=file:text.txt"]) == 0
    assert "Fingerprint: " in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]
    assert main.main(["--mode=data", "--config.data.source=relations", "--config.data.relations=9"]) == 2
    assert "asks for 9 relations" in capsys.readouterr().err


@pytest.mark.parametrize("most_counted", [0, 2**18])
def test_a_rule_is_judged_on_the_half_that_it_was_not_fitted_to(most_counted, monkeypatch):
    """Against a count in words, whether what is seen is sorted first or counted as it is."""
    monkeypatch.setattr(shortcuts, "MOST_COUNTED", most_counted)
    draw, half = np.random.default_rng(3), 170
    seen, truth = draw.integers(-1, 6, (2, 400)), draw.integers(0, 2, 400).astype(np.int8)
    losses, hits = [], []
    for held, fitted in ((range(half), range(half, 400)), (range(half, 400), range(half))):
        for row in held:
            alike = [int(truth[other]) for other in fitted if (seen[:, other] == seen[:, row]).all()]
            said = (sum(alike) + 0.5) / (len(alike) + 1)
            losses.append(-np.log(said if truth[row] else 1 - said))
            hits.append(0.5 if said == 0.5 else float((said > 0.5) == truth[row]))
    loss, right = shortcuts._judged(tuple(seen), truth, half)
    assert loss == pytest.approx(np.mean(losses), rel=1e-12) and right == np.mean(hits)


def test_a_bag_and_a_position_are_judged_exactly():
    """Family P, one relation at offset 1: the bag of the last 4 words holds c ones with probability C(4, c) / 16 and
    then says c / 4; the word at offset 1 says all."""
    config = data_config(source="relations", relations="1", noise=0.1)
    (relation,) = shortcuts.table(parse.language(config), 0, 500_000)
    rules = {rule.rule: rule for rule in relation.shortcuts}

    def entropy(p):
        return -(p * np.log(p) + (1 - p) * np.log(1 - p))

    noisy = 0.1 + 0.8 * np.arange(5) / 4
    bag = np.dot([1, 4, 6, 4, 1], entropy(noisy)) / 16
    assert rules["bag of the type"].loss == pytest.approx(bag, abs=0.01)
    assert rules["most frequent offset"].is_relation and rules["latest of the type"].is_relation
    assert rules["most frequent offset"].loss == pytest.approx(entropy(0.1), abs=0.01)
    assert relation.floor == pytest.approx(entropy(0.1), abs=0.01) and relation.share == 1
    assert rules["query alone"].loss == pytest.approx(np.log(2), abs=0.01)
    assert not rules["any one word"].is_relation and rules["any one word"].loss == pytest.approx(np.log(2), abs=0.01)
    assert relation.best is rules["bag of the type"]


def test_the_shortcuts_of_the_kinds():
    """The latest rare word is D itself; the latest name is of the wrong gender, the latest opener an attractor."""
    found = shortcuts.table(parse.language(data_config(source="relations", relations="A,C,D,E")), 0, 500_000)
    by_name = {relation.name: {rule.rule: rule for rule in relation.shortcuts} for relation in found}
    assert by_name["D"]["latest of the type"].is_relation and by_name["D"]["latest of the type"].loss < 0.01
    for name in "AC":
        assert abs(by_name[name]["latest of the type"].right - 0.5) < 0.03
    # One of the five words agrees with their majority in (1 + C(4, 2) / 16) / 2 of all cases, and a bit more as members
    # of a class agree.
    assert by_name["E"]["trigram"].right == pytest.approx(11 / 16, abs=0.02)
    assert all(0.2 < relation.best.loss < 0.7 for relation in found)
