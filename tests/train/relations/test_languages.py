"""The languages against a reader of their texts that was written apart (reader.py)."""

import dataclasses
import itertools
import math
import time

import numpy as np
import pytest

from tests.train.relations.reader import OFFSETS, DoseReader, KindsReader, MixedReader
from train.data.relations import dose, kinds, language
from train.data.relations.dose import Dose
from train.data.relations.kinds import Kinds
from train.data.relations.parse import Mixed

ALL = tuple("ABCDEFG")


def of_dose(r=6, row=0, **dials):
    """A language of family P and a maker of its readers."""
    on = dose.active(row, 6, r)
    names = {"demand": "switch", "tagged": "tagged", "distractors": "distractors", "noise": "noise"}
    reader = {name: dials[name] for name in names if name in dials and name != "demand"}
    reader["switch"] = dials.get("demand") == "switch"
    return Dose(on, **dials), lambda: DoseReader([OFFSETS[relation] for relation in on], **reader)


def of_kinds(on=ALL, **dials):
    return Kinds(tuple(on), **dials), lambda: KindsReader(on, **dials)


def of_both(**dials):
    ours, read_ours = of_dose(4, 2, **dials)
    theirs, read_theirs = of_kinds("ACG", **dials)
    return Mixed(ours, theirs), lambda: MixedReader(read_ours(), read_theirs())


LANGUAGES = {
    "P1": of_dose(1, 3),
    "P6": of_dose(6),
    "P6 noisy": of_dose(6, noise=0.1),
    "P4 tagged": of_dose(4, 5, tagged=True, noise=0.2, distractors=0.4),
    "P3 without distractors": of_dose(3, 1, distractors=0.0),
    "P switch": of_dose(4, 1, demand="switch"),
    "P switch noisy": of_dose(6, demand="switch", noise=0.05, tagged=True),
    "P1 switch": of_dose(1, 4, demand="switch", noise=0.3),
    "K": of_kinds(),
    "K noisy": of_kinds(noise=0.1),
    "K three": of_kinds("ACG", noise=0.2),
    "K long": of_kinds(noise=0.0, length=130, frame_tokens=20, most_fillers=5)[0:1]
    + (lambda: KindsReader(ALL, frame=20, most=5),),
    "mixed": of_both(),
    "mixed noisy": of_both(noise=0.15),
}
every_language = pytest.mark.parametrize("name", LANGUAGES)


def text_of(spoken, tokens) -> list[str]:
    return [spoken.vocabulary.words[token] for token in tokens]


@every_language
def test_recorded_probabilities_are_the_readers(name):
    spoken, reader = LANGUAGES[name]
    found = language.documents(spoken, 7, 1000, 1060)  # across two blocks
    for tokens, log_p in zip(found.tokens, found.log_p, strict=True):
        reads, own = reader(), []
        for word in text_of(spoken, tokens):
            own.append(reads.p(word))
            reads.read(word)
        np.testing.assert_allclose(log_p, np.log(own), rtol=0, atol=1e-12)


@every_language
def test_after_any_prefix_the_probabilities_of_the_next_word_sum_to_one(name):
    """So those of all documents do, by the chain rule."""
    spoken, reader = LANGUAGES[name]
    for tokens in language.documents(spoken, 3, 0, 4).tokens:
        reads = reader()
        for word in text_of(spoken, tokens):
            assert math.fsum(map(reads.p, spoken.vocabulary.words)) == pytest.approx(1, abs=1e-12)
            reads.read(word)


@pytest.mark.parametrize("dials", [{}, {"noise": 0.2}, {"demand": "switch"}, {"tagged": True}, {"distractors": 0.5}])
def test_the_documents_of_a_tiny_language_sum_to_one(dials):
    """The recorded probabilities alone, over every document that there is."""
    spoken = Dose((1,), (1, 2), frame_tokens=2, most_fillers=1, length=6, fillers=1, synonyms=1, **dials)
    found = language.documents(spoken, 0, 0, 200 * language.BLOCK)
    unique, index = np.unique(found.tokens, axis=0, return_index=True)
    p = np.exp(found.log_p.sum(axis=1))
    assert len(unique) >= 64
    assert math.fsum(p[index]) == pytest.approx(1, abs=1e-12)
    again = dict(zip(map(bytes, unique), p[index], strict=True))
    np.testing.assert_allclose(p, [again[bytes(tokens)] for tokens in found.tokens], rtol=1e-12)


def links_of(table, document) -> list[tuple]:
    mine = table.document == document
    return list(zip(*(column[mine].tolist() for column in table[1:]), strict=True))


def check_links(spoken, reader, seed: int, count: int) -> int:
    found = language.documents(spoken, seed, 0, count)
    order = np.argsort(found.links.document, kind="stable")
    assert (order == np.arange(len(order))).all()
    bounds = np.searchsorted(found.links.document, np.arange(count + 1))
    asked = np.searchsorted(found.questions.document, np.arange(count + 1))
    for document, tokens in enumerate(found.tokens):
        reads, links, log_bits = reader(), [], []
        for word in text_of(spoken, tokens):
            reads.read(word)
            links.extend(reads.links)
            log_bits.extend(reads.log_bits if reads.links else [])
        mine = slice(bounds[document], bounds[document + 1])
        names = [spoken.relations[relation] for relation in found.links.relation[mine]]
        assert sorted(zip(found.links.query[mine], found.links.key[mine], names, strict=True)) == sorted(links)
        recorded = found.questions.log_p[asked[document] : asked[document + 1]]
        np.testing.assert_allclose(np.sort(recorded), np.sort(np.log(log_bits)), atol=1e-12)
    return len(found.links.document)


@every_language
def test_links_are_those_that_a_reader_finds(name):
    assert check_links(*LANGUAGES[name], seed=11, count=150) > 100


@pytest.mark.slow
@pytest.mark.parametrize("name", ["P6 noisy", "P switch", "K noisy", "mixed"])
def test_links_of_ten_thousand_documents(name):
    assert check_links(*LANGUAGES[name], seed=12, count=10_000) > 10_000


def answers_of(spoken, found) -> np.ndarray:
    tokens = found.tokens.ravel()
    return spoken.vocabulary.answer_bits[tokens[spoken.vocabulary.answer_bits[tokens, 0] >= 0]]


@pytest.mark.parametrize("demand", ["joint", "switch"])
def test_the_load_does_not_move_with_the_dose(demand):
    """The same words, the same text but for the answers, and answers that are as hard to guess."""
    seen = []
    for r, row in itertools.product(range(1, 7), (0, 3)):
        spoken, _ = of_dose(r, row, demand=demand)
        found = language.documents(spoken, 5, 0, 4 * language.BLOCK)
        answers = answers_of(spoken, found)
        text = np.where(spoken.vocabulary.answer_bits[found.tokens, 0] >= 0, -1, found.tokens)
        seen.append((spoken.vocabulary.words, text.tobytes(), len(answers)))
        counts = np.bincount(answers @ (2 ** np.arange(6)), minlength=64)
        expected = len(answers) / 64
        assert ((counts - expected) ** 2 / expected).sum() < 63 + 4 * math.sqrt(2 * 63), "every answer as likely"
    assert all(each == seen[0] for each in seen)


def test_the_load_does_not_move_with_the_kinds():
    seen = []
    for on in ("A", "G", "BE", "ACDF", ALL):
        spoken, _ = of_kinds(on)
        found = language.documents(spoken, 5, 0, 4 * language.BLOCK)
        ones = answers_of(spoken, found)[:, 0]
        assert abs(ones.mean() - 0.5) < 4 * 0.5 / math.sqrt(len(ones))
        text = np.where(spoken.vocabulary.answer_bits[found.tokens, 0] >= 0, -1, found.tokens)
        seen.append((spoken.vocabulary.words, text.tobytes(), len(ones)))
    assert all(each == seen[0] for each in seen)


def check_frequencies(name: str, num_tokens: int, rivals: int) -> None:
    """At every token the words are guessed that `rivals` other documents have in its place; each word comes true as
    often as its probabilities say, and so do all guesses of about the same probability."""
    spoken, reader = LANGUAGES[name]
    found = language.documents(spoken, 23, 0, num_tokens // spoken.length + 1)
    guesses = np.stack([np.roll(found.tokens, 1 + rival, axis=0) for rival in range(rivals)], axis=2)
    ps, hits, words = [], [], []
    for tokens, guessed in zip(found.tokens, guesses, strict=True):
        reads = reader()
        for token, others in zip(tokens.tolist(), guessed.tolist(), strict=True):
            for guess in set(others):
                ps.append(reads.p(spoken.vocabulary.words[guess]))
                hits.append(guess == token)
                words.append(guess)
            reads.read(spoken.vocabulary.words[token])
    ps, hits, words = np.array(ps), np.array(hits), np.array(words)
    assert hits[ps == 0].sum() == 0 and hits[ps == 1].all()
    likely = np.round(4 * np.log2(np.where(ps > 0, ps, 1))).astype(int)
    for each in np.unique(likely[(ps > 0) & (ps < 1)]):
        mine = (likely == each) & (ps > 0) & (ps < 1)
        assert come_true(ps[mine], hits[mine], 4), f"about {2 ** (each / 4):.4f}"
    for each in np.unique(words):
        assert come_true(ps[words == each], hits[words == each], 5), spoken.vocabulary.words[each]


def come_true(ps: np.ndarray, hits: np.ndarray, most: float) -> bool:
    """Whether there are as many hits as guesses of these probabilities have, within `most` standard errors; few are not
    normally distributed, and one more is let pass."""
    error = np.sqrt((ps * (1 - ps)).sum())
    return abs(hits.sum() - ps.sum()) <= most * error + (error < 3)


every_family = pytest.mark.parametrize("name", ["P4 tagged", "P switch noisy", "K noisy", "mixed noisy"])


@every_family
def test_words_occur_as_often_as_they_should(name):
    check_frequencies(name, 20_000, rivals=16)


@pytest.mark.slow
@every_family
def test_words_occur_as_often_as_they_should_in_a_million(name):
    check_frequencies(name, 10**6, rivals=1)


def test_a_block_is_a_function_of_seed_and_index():
    spoken, _ = LANGUAGES["mixed"]
    whole = language.documents(spoken, 1, 0, 2 * language.BLOCK)
    for first, last in ((0, 5), (1020, 1030), (1024, 1024), (2000, 2048)):
        part = language.documents(spoken, 1, first, last)
        np.testing.assert_array_equal(part.tokens, whole.tokens[first:last])
        np.testing.assert_array_equal(part.log_p, whole.log_p[first:last])
        for ours, all_ in ((part.links, whole.links), (part.questions, whole.questions)):
            inside = (all_.document >= first) & (all_.document < last)
            np.testing.assert_array_equal(ours.document, all_.document[inside] - first)
            for one, other in zip(ours[1:], all_[1:], strict=True):
                np.testing.assert_array_equal(one, other[inside])
    assert not np.array_equal(language.block(spoken, 2, 0).tokens, whole.tokens[: language.BLOCK])


def test_what_is_drawn_follows_every_dial():
    spoken, _ = LANGUAGES["P4 tagged"]
    other = [dataclasses.replace(spoken, **change) for change in ({"noise": 0.1}, {"on": (0, 1, 2, 3)}, {"length": 65})]
    prints = {fingerprint(each, 0) for each in (spoken, *other)} | {fingerprint(spoken, 1)}
    assert len(prints) == 5 and fingerprint(spoken, 0) in prints


def fingerprint(spoken, seed: int) -> tuple:
    first = language.block(spoken, seed, 0)
    arrays = first.tokens, first.log_p, *first.links, *first.questions
    return spoken.vocabulary.words, spoken.relations, *(array.tobytes() for array in arrays)


def test_rows_of_the_square():
    """Every relation is on as often, and every row has all of them."""
    for count in (1, 2, 5, 6):
        for r in range(1, count + 1):
            on = [dose.active(row, count, r) for row in range(count)]
            assert np.bincount(np.ravel(on), minlength=count).tolist() == [r] * count
            assert all(len(set(each)) == r for each in on)


@pytest.mark.parametrize(("name", "least"), [("P6", 500_000), ("P switch noisy", 500_000), ("K", 200_000)])
def test_speed(name, least):
    spoken, _ = LANGUAGES[name]
    language.block(spoken, 0, 0)
    taken = []
    for index in range(3):
        began = time.process_time()
        language.block(spoken, 0, index)
        taken.append(time.process_time() - began)
    assert language.BLOCK * spoken.length / min(taken) > least


def test_majorities_and_members_have_all_their_links():
    spoken, _ = LANGUAGES["K"]
    found = language.documents(spoken, 0, 0, 200)
    relation = kinds.KINDS.index("E")
    asked = (found.questions.relation == relation).sum()
    assert (found.links.relation == relation).sum() == 5 * asked > 0
