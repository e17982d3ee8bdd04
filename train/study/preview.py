"""--mode=data: what a study would train on: documents, labels, floors, shortcuts, splits, fingerprint; of a study of
doses the language of each dose. A document is its words in rows, below each row an arc for every gold link that ends
there."""

import re
import tempfile
from collections.abc import Iterable

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from train import grid
from train.config import DataConfig, StudyConfig
from train.data import corpora, gold, sources
from train.data.bpe import Bpe
from train.data.relations import doses, parse, shortcuts
from train.data.relations.language import Language, Links
from train.study import stages

DOCUMENTS = 3
DOCUMENTS_OF_A_DOSE = 2
WORDS = 40  # of a text without rows that are shown
COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red", "bright_cyan", "bright_magenta", "bright_green")
LABEL = 14  # columns kept free for the names of links


def show(console: Console, config: StudyConfig) -> None:
    """Prints it all; nothing is kept on disk.

    Raises:
      InputError: the source cannot be had, or the study of doses cannot be (train.study.stages.check).
    """
    if config.dose.relations:
        return _show_doses(console, config)
    data = config.data
    with tempfile.TemporaryDirectory() as folder:
        corpus = corpora.write_corpus(data, folder)
        _documents(console, data, corpus)
        if data.source == "relations":
            _relations(console, parse.language(data), data.language_seed)
        _splits(console, data, corpus)
        for note in corpus.notes:
            console.print(note, markup=False)
        _cut(console, data, corpus)
        if corpus.labelled:
            console.print(Text("\nText with gold links that nobody trains on:", "bold"))
            _documents(console, data, corpus.labelled)
            _splits(console, data, corpus.labelled)
            _cut(console, data, corpus.labelled)
        console.print(f"Fingerprint: {corpus.fingerprint}", soft_wrap=True)


def _documents(console: Console, config: DataConfig, corpus: corpora.Corpus) -> None:
    first, last = corpus.splits["tune"]
    for document in range(first, min(first + DOCUMENTS, last)):
        console.print(Text(f"Document {corpus.names[document]}, {corpus.num_tokens[document]:,} tokens", "bold"))
        tokens = np.asarray(corpus.tokens[corpus.offsets[document] : corpus.offsets[document + 1]])
        if config.source in parse.SOURCES:
            words, ends = _language_words(parse.language(config), tokens)
            word_of = np.arange(len(tokens))
        else:
            words, word_of = _text_words(corpus, tokens[1:])
            ends = frozenset()
        words = words if ends else words[:WORDS]
        links = _links(corpus.gold.links, document) if corpus.gold else ()
        rows = {(int(word_of[query]), int(word_of[key]), relation) for query, key, relation in links}
        shown = [row for row in rows if row[0] != row[1] and max(row[:2]) < len(words)]
        draw(console, words, shown, corpus.gold.relations if corpus.gold else (), ends)
        console.print()


def _links(links: Links, document: int) -> list[tuple[int, int, int]]:
    """(query, key, relation) of those of one document."""
    mine = links.document == document
    return list(zip(*(column[mine].tolist() for column in links[1:]), strict=True))


def _show_doses(console: Console, config: StudyConfig) -> None:
    """Every dose in the language of the first judged seed; no corpus, since runs draw their own documents."""
    stages.check(config, grid.cells_of(config, sources.vocab_size(config.data)))
    seed, rows = config.grid.init_seeds[0], parse.rows(config.data)
    for dose in config.dose.relations:
        spoken, looked_at = parse.spoken(config.data, dose, seed), doses.looked_at(config, dose, "test", seed)
        console.print(
            Text(f"Dose {dose}, seed {seed} (row {seed % rows} of {rows}): {', '.join(spoken.relations)}", "bold")
        )
        for document, tokens in enumerate(looked_at.tokens[:DOCUMENTS_OF_A_DOSE]):
            words, ends = _language_words(spoken, tokens)
            draw(console, words, _links(looked_at.links, document), spoken.relations, ends)
            console.print()
        _relations(console, spoken, seed)
    held, batch = config.dose.documents, config.train.batch_size
    console.print(
        f"A token is a word of the language, of {len(spoken.vocabulary):,}; a document has {spoken.length}. Every run "
        f"reads the language of its own seed, whose remainder by {rows} chooses its relations. Of each language "
        f"{held:,} documents are held out for the looks of tune and {held:,} for those of test; training draws new "
        f"ones without end, {batch:,} a step, {batch * config.train.steps:,} for a run of {config.train.steps:,} "
        f"steps, and none comes twice.",
    )


def _language_words(spoken: Language, tokens: np.ndarray) -> tuple[list[str], set[int]]:
    """The words, and those that end a row (answers, if it has any)."""
    ends = set(np.flatnonzero((spoken.vocabulary.answer_bits[tokens] >= 0).any(axis=1)).tolist())
    return [spoken.vocabulary.words[token] for token in tokens], ends


def _text_words(corpus: corpora.Corpus, tokens: np.ndarray) -> tuple[list[str], np.ndarray]:
    """What stands between blanks, and the word of BOS (none: the number of words) and of each token, by its last
    byte."""
    if corpus.tokenizer:
        bpe = Bpe(corpus.tokenizer)
        text, ends = bpe.decode(tokens).encode(), bpe.ends(tokens)
    else:
        text, ends = bytes(tokens.astype(np.uint8)), np.arange(1, len(tokens) + 1)
    words = list(re.finditer(rb"\S+", text))
    word_of = np.searchsorted([match.end() for match in words], ends - 1, side="right")
    return [match[0].decode(errors="replace") for match in words], np.concatenate([[len(words)], word_of])


def _relations(console: Console, spoken: Language, seed: int) -> None:
    rules = shortcuts.table(spoken, seed)
    console.print(
        f"Floor, and rules that need no relation, in nats a bit with the share they get right, over "
        f"{shortcuts.TOKENS:,} tokens (* the relation itself; the best shortcut stands out):",
    )
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("", "share", "floor", *(rule.rule for rule in rules[0].shortcuts)):
        shown.add_column(name, justify="right")
    for relation in rules:
        cells = []
        for rule in relation.shortcuts:
            text = f"{_short(rule.loss)}*" if rule.is_relation else f"{_short(rule.loss)} {rule.right:.0%}"
            cells.append(Text(text, "bold green" if rule == relation.best else ""))
        shown.add_row(relation.name, f"{relation.share:.0%}", _short(relation.floor), *cells)
    console.print(shown)


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _cut(console: Console, config: DataConfig, corpus: corpora.Corpus) -> None:
    """How many links the windows of evaluation cut."""
    for split in ("tune", "test") if corpus.gold else ():
        first, last = corpus.splits[split]
        document = corpus.gold.links.document
        total = int(((document >= first) & (document < last)).sum())
        kept = len(gold.in_windows(corpus.gold.links, corpora.eval_windows(corpus, split, config.seq_len))[0])
        console.print(
            f"{split}: {total:,} links; {total - kept:,} dropped, since a window of {config.seq_len} tokens does not "
            f"hold both ends with what follows.",
        )


def _splits(console: Console, config: DataConfig, corpus: corpora.Corpus) -> None:
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("split", "documents", "tokens", f"windows of {config.seq_len}"):
        shown.add_column(name, justify="left" if name == "split" else "right")
    for split, (first, last) in corpus.splits.items():
        tokens = int(np.diff(corpus.offsets_of(split)).sum()) - (last - first)
        shown.add_row(split, f"{last - first:,}", f"{tokens:,}", f"{corpus.num_windows(split, config.seq_len):,}")
    console.print(shown)
    unit = "record of the source" if corpus.unit == "document" else "block of one"
    console.print(
        f"{corpus.source}: a token is a {corpus.token}, of {corpus.vocab_size:,}; a document is a {unit}.",
        markup=False,
    )


def colour_of(relation: int) -> str:
    return COLOURS[relation % len(COLOURS)]


def draw(
    console: Console,
    words: list[str],
    links: Iterable[tuple[int, int, int]],
    relations: tuple[str, ...],
    ends: set[int] = frozenset(),
) -> None:
    """Prints `words`, a row as wide as the console at most, and the links below the row of their query.

    Args:
      links: (query, key, relation), positions in `words`; those of one query and relation share a line.
      ends: positions that end a row.
    """
    arcs = {}
    for query, key, relation in sorted(links):
        arcs.setdefault((query, relation), []).append(key)
    for row in _rows(words, console.width - LABEL, ends):
        places, column = {}, 0
        for position in row:
            places[position] = column + (len(words[position]) - 1) // 2
            column += len(words[position]) + 1
        lines = [Text()]
        for position in row:
            styles = [colour_of(relation) for (query, relation), keys in arcs.items() if position in (query, *keys)]
            lines[0].append(words[position] + " ", styles[0] if styles else "dim")
        for (query, relation), keys in arcs.items():
            if query in places:
                lines.append(Text(f"{_arc(places, query, keys, words)} {relations[relation]}", colour_of(relation)))
        for line in lines:
            console.print(line, no_wrap=True, overflow="crop")


def _rows(words: list[str], width: int, ends: set[int]) -> Iterable[range]:
    begin, used = 0, 0
    for position, word in enumerate(words):
        if position > begin and (used + len(word) > width or position - 1 in ends):
            yield range(begin, position)
            begin, used = position, 0
        used += len(word) + 1
    if begin < len(words):
        yield range(begin, len(words))


def _arc(places: dict[int, int], query: int, keys: list[int], words: list[str]) -> str:
    """A line from the keys, └ or ┴, to the query, ┘ (▲ where a key stands behind it); keys in other rows are named, and
    for those above the line begins at the margin."""
    here = sorted({places[key] for key in keys if key in places} | {places[query]})
    away = {side: [words[key] for key in keys if key not in places and (key < query) == (side == "above")]
            for side in ("above", "below")}  # fmt: skip
    begin = 0 if away["above"] else here[0]
    line = list(" " * begin + "─" * (here[-1] + 1 - begin))
    for place in here:
        line[place] = "┴"
    if not away["above"]:
        line[here[0]] = "└"
    line[here[-1]] = "┘"
    line[places[query]] = "┘" if places[query] == here[-1] else "▲"
    return "".join(line) + "".join(f" ({', '.join(names)} {side})" for side, names in away.items() if names)
