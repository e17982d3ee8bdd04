"""From data.source to tokens: text as bytes or BPE pieces, or the words of a language."""

import collections
import dataclasses

import numpy as np

from train.config import DataConfig, refuse
from train.data import conllu_text, documents, gold, tfds_text
from train.data.bpe import DEFAULT_VOCAB_SIZE, Bpe, trained
from train.data.corpora import BOS, VOCAB_SIZE, Corpus
from train.data.gold import Gold
from train.data.relations import language, parse

MOST_TOKENS = 2**31 - 1
FEWEST = 8  # documents of tune in a language, and of test


def vocab_size(config: DataConfig) -> int:
    """Words of the model, known before the corpus is.

    Raises:
      InputError: data.vocab_size is too small for the source.
    """
    if config.source in parse.SOURCES:
        return config.vocab_size or len(parse.language(config).vocabulary)
    refuse(
        0 < config.vocab_size < VOCAB_SIZE
        and f"data.vocab_size={config.vocab_size} is too small: text needs the 256 bytes and one token between "
        f"documents, {VOCAB_SIZE} in all; give at least that, or 0 for the tokenizer's default.",
        config.vocab_size > language.MOST_WORDS
        and f"data.vocab_size={config.vocab_size:,} is too large; {language.MOST_WORDS:,} is the most.",
    )
    return config.vocab_size or (VOCAB_SIZE if config.tokenizer == "bytes" else DEFAULT_VOCAB_SIZE)


def read(config: DataConfig) -> Corpus:
    """Everything that config.source has, and config.labelled, not written yet.

    Raises:
      InputError: a source is unknown, unreadable, too short, or has more tokens than an int32 can count.
    """
    return _language(config) if config.source in parse.SOURCES else _text(config)


def _text(config: DataConfig) -> Corpus:
    annotated, notes = None, []
    if conllu_text.is_source(config.source):
        annotated, unit, report = conllu_text.read(config.source)
        notes = report.notes()
        splits = documents.of_cut([(document.name, document.text) for document in annotated], config, unit)
    else:
        splits, unit = documents.read(config)
    tokenizer = None
    if config.tokenizer == "bpe":
        tokenizer = trained([document.text for document in splits["train"]], vocab_size(config))
    corpus = _tokenized(splits, annotated, tokenizer, config)
    corpus = dataclasses.replace(corpus, source=config.source, unit=unit, notes=(*notes, *corpus.notes))
    return _with_labelled(corpus, splits["train"], config) if config.labelled else corpus


def _with_labelled(corpus: Corpus, train: list[documents.Document], config: DataConfig) -> Corpus:
    """`corpus` with the text of data.labelled beside it.

    Raises:
      InputError: it is no text with gold links, too short, or has too many tokens.
    """
    source = config.labelled
    refuse(
        not conllu_text.is_source(source)
        and f"data.labelled={source!r} has no gold links; text that has them is conllu:PATH-or-glob and "
        f"tfds:{tfds_text.TREES}/..., and text without belongs to data.source."
    )
    annotated, unit, report = conllu_text.read(source)
    splits = documents.beside([(document.name, document.text) for document in annotated], train, config)
    labelled = _tokenized(splits, annotated, corpus.tokenizer, config)
    refuse(
        not len(labelled.gold.links.query)
        and f"data.labelled={source} has {len(labelled.names)} documents and no link in them: every word is a root, so "
        "there is nothing to measure; give text with heads."
    )
    notes = [f"Labelled text: {note}" for note in (*report.notes(), *labelled.notes)]
    labelled = dataclasses.replace(labelled, source=source, unit=unit, notes=())
    return dataclasses.replace(corpus, labelled=labelled, notes=(*corpus.notes, *notes))


def _tokenized(
    splits: dict[str, list[documents.Document]],
    annotated: list[conllu_text.Annotated] | None,
    tokenizer: str | None,
    config: DataConfig,
) -> Corpus:
    """The documents as tokens, one split behind the other, with the links of `annotated`, where these are they.

    Raises:
      InputError: they have more tokens than an int32 can count.
    """
    chosen = [document for split in splits.values() for document in split]
    texts, size, labels, notes = [document.text for document in chosen], vocab_size(config), None, []
    if tokenizer is None:
        bos, pieces = BOS, [np.frombuffer(text, np.uint8) for text in texts]
    else:
        bos, pieces = size - 1, Bpe(tokenizer).encode(texts)
    offsets = np.cumsum([0] + [len(each) + 1 for each in pieces], dtype=np.int64)
    refuse(
        offsets[-1] > MOST_TOKENS
        and f"data.source={config.source} makes {offsets[-1]:,} tokens and {MOST_TOKENS:,} is the most; set "
        "data.max_bytes=2_000_000_000 or less."
    )
    tokens = np.empty(offsets[-1], np.uint16)
    for each, first, last in zip(pieces, offsets[:-1], offsets[1:], strict=True):
        tokens[first] = bos
        tokens[first + 1 : last] = each
    if annotated is not None:
        ends = Bpe(tokenizer).ends if tokenizer else lambda ids: np.arange(1, len(ids) + 1)
        by_text = {document.text: document for document in annotated}
        labels, notes = _labels([by_text[text] for text in texts], [ends(each) for each in pieces], config)
    bounds = _bounds({split: len(of_split) for split, of_split in splits.items()})
    bytes_of = np.array([len(text) for text in texts], np.int64) if tokenizer else None
    more = dict(vocab_size=size, bos=bos, gold=labels, bytes_of=bytes_of, tokenizer=tokenizer, notes=tuple(notes))
    return Corpus(tokens, offsets, tuple(document.name for document in chosen), bounds, "", "", **more)


def _labels(annotated: list, ends: list[np.ndarray], config: DataConfig) -> tuple[Gold, list[str]]:
    """The links of words as links of tokens (config.piece of each word), and what did not gold."""
    relations = tuple(sorted({relation for document in annotated for *_, relation in document.links}))
    index = {relation: number for number, relation in enumerate(relations)}
    rows, shared, within = [], 0, collections.Counter()
    for number, (document, its_ends) in enumerate(zip(annotated, ends, strict=True)):
        shared += gold.num_shared(document.spans, its_ends)
        words = [(query, key, index[relation]) for query, key, relation in document.links]
        links = gold.links_of_tokens(words, *gold.pieces(document.spans, its_ends), config.piece)
        within.update(relations[relation] for query, key, relation in links if query == key)
        rows.extend((number, query + 1, key + 1, relation) for query, key, relation in links if query != key)  # + BOS
    token = "every token" if config.piece == "all" else f"the {config.piece} token"
    notes = [f"{len(rows):,} links of {len(relations)} relations, from and to {token} of a word."]
    if within:
        listed = ", ".join(f"{relation} {count:,}" for relation, count in within.most_common())
        notes.append(f"{within.total():,} links were dropped, whose words share the token that bears them: {listed}.")
    if shared:
        num_words = sum(len(document.spans) for document in annotated)
        notes.append(f"{shared:,} of {num_words:,} words share a token with another word.")
    links = language.Links(*np.array(rows, np.int32).reshape(-1, 4).T)
    no_questions = language.Questions(*[np.zeros(0, np.int32)] * 4, np.zeros(0))
    return Gold(relations, 0, links, no_questions, np.zeros((0, 0), np.int8), np.zeros(0)), notes


def _language(config: DataConfig) -> Corpus:
    """The documents of a language. data.max_bytes counts tokens here. The documents of test come first in the
    language's own numbering and those of train last, so that more training text leaves the others as they are.

    Raises:
      InputError: a language that cannot be (train.data.relations.parse), or too few documents of it.
    """
    spoken = parse.language(config)
    length, bits, first, parts = spoken.length, spoken.vocabulary.answer_bits, 0, {}
    counts = _counts(config, length)
    bounds = _bounds(counts)
    for split in reversed(documents.SPLITS):
        last = first + counts[split]
        parts[split] = language.documents(spoken, config.language_seed, first, last, bounds[split][0])
        first = last
    labels = language.joined([parts["tune"], parts["test"]])
    labels = Gold(spoken.relations, counts["train"], labels.links, labels.questions, bits, labels.log_p.ravel())
    tokens = np.concatenate([parts[split].tokens for split in documents.SPLITS])
    offsets = np.arange(len(tokens) + 1, dtype=np.int64) * length
    names = tuple(f"{split}/{index}" for split, count in counts.items() for index in range(count))
    more = dict(vocab_size=vocab_size(config), bos=language.BOS, gold=labels)
    return Corpus(tokens.ravel(), offsets, names, bounds, config.source, "document", **more)


def _counts(config: DataConfig, length: int) -> dict[str, int]:
    """Documents of each split."""
    total = config.max_bytes // length
    tune, test = (int(total * share) for share in (config.tune_fraction, config.test_fraction))
    counts = {"train": total - tune - test, "tune": tune, "test": test}
    fewest = -(-documents.TRAIN_WINDOWS * (config.seq_len + 1) // length)
    shares = min(config.tune_fraction, config.test_fraction)
    enough = max(-(-FEWEST // shares) + 1, fewest / (1 - config.tune_fraction - config.test_fraction) + 2)
    refuse(
        (not config.max_bytes or min(tune, test) < FEWEST or counts["train"] < fewest)
        and f"data.max_bytes={config.max_bytes:,} (for data.source={config.source}: tokens of all splits together) "
        f"makes {counts['train']} documents of {length} tokens to train on, {tune} for tune and {test} for test; a "
        f"language has no end, so say how much, at least --config.data.max_bytes={int(enough * length)}."
    )
    return counts


def _bounds(counts: dict[str, int]) -> dict[str, tuple[int, int]]:
    """(first, last) document of each split, in the order train, tune, test."""
    ends = np.cumsum([0, *counts.values()]).tolist()
    return dict(zip(counts, zip(ends[:-1], ends[1:], strict=True), strict=True))
