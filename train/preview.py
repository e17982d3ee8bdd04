"""--mode=data: what a study would train on: documents, labels, floors, shortcuts, splits, fingerprint."""

import tempfile

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from train import data, draw
from train.config import DataConfig
from train.data import Corpus

DOCUMENTS = 3
SNIPPET = 400  # bytes of a text that are shown


def show(console: Console, config: DataConfig) -> None:
    """Prints it all; nothing is kept on disk.

    Raises:
      InputError: the source cannot be had.
    """
    with tempfile.TemporaryDirectory() as folder:
        corpus = data.write_corpus(config, folder)
        _documents(console, config, corpus)
        if config.source == "relations":
            _relations(console, config)
        _splits(console, config, corpus)
        console.print(f"Fingerprint: {corpus.fingerprint}", highlight=False, soft_wrap=True)


def _documents(console: Console, config: DataConfig, corpus: Corpus) -> None:
    first, last = corpus.splits["tune"]
    for document in range(first, min(first + DOCUMENTS, last)):
        tokens = np.asarray(corpus.tokens[corpus.offsets[document] : corpus.offsets[document + 1]])
        console.print(Text(f"Document {corpus.names[document]}, {len(tokens) - 1:,} tokens", "bold"))
        if config.source == "relations":
            _language_document(console, config, corpus, document, tokens)
        else:
            text = bytes(tokens[1 : SNIPPET + 1].astype(np.uint8)).decode(errors="ignore")
            console.print(Text(text + (" ..." if len(tokens) > SNIPPET + 1 else "")))
        console.print()


def _language_document(console: Console, config: DataConfig, corpus: Corpus, document: int, tokens) -> None:
    from train.relations import parse

    vocabulary = parse.language(config).vocabulary
    links = corpus.gold.links
    mine = links.document == document
    rows = zip(*(column[mine].tolist() for column in links[1:]), strict=True)
    ends = set(np.flatnonzero(vocabulary.answer_bits[tokens, 0] >= 0).tolist())
    draw.document(console, [vocabulary.words[token] for token in tokens], rows, corpus.gold.relations, ends)


def _relations(console: Console, config: DataConfig) -> None:
    from train.relations import parse, shortcuts

    spoken = parse.language(config)
    found = shortcuts.table(spoken, config.language_seed)
    console.print(
        f"Floor, and rules that need no relation, in nats a bit with the share they get right, over "
        f"{shortcuts.TOKENS:,} tokens (* the relation itself; the best shortcut stands out):",
        highlight=False,
    )
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("", "share", "floor", *(rule.rule for rule in found[0].shortcuts)):
        shown.add_column(name, justify="right")
    for relation in found:
        cells = []
        for rule in relation.shortcuts:
            text = f"{_short(rule.loss)}*" if rule.is_relation else f"{_short(rule.loss)} {rule.right:.0%}"
            cells.append(Text(text, "bold green" if rule == relation.best else ""))
        shown.add_row(relation.name, f"{relation.share:.0%}", _short(relation.floor), *cells)
    console.print(shown)


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _splits(console: Console, config: DataConfig, corpus: Corpus) -> None:
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("split", "documents", "tokens", f"windows of {config.seq_len}"):
        shown.add_column(name, justify="left" if name == "split" else "right")
    for split, (first, last) in corpus.splits.items():
        tokens = int(np.diff(corpus.offsets_of(split)).sum()) - (last - first)
        windows = corpus.num_windows(split, config.seq_len)
        shown.add_row(split, f"{last - first:,}", f"{tokens:,}", f"{windows:,}")
    console.print(shown)
    unit = "record of the source" if corpus.unit == "document" else "block of one"
    console.print(
        f"{corpus.source}: a token is a {corpus.token}, of {corpus.vocab_size:,}; a document is a {unit}.",
        highlight=False,
    )
