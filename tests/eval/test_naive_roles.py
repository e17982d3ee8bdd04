"""The slow measures of roles, on cases small enough to be worked out on paper, and on attention that fools."""

import math

import numpy as np
import pytest

from tests.eval import linked_documents, naive_roles, tricky_attention
from tests.eval.planted import planted

TOKENS = np.array([[7, 5, 5, 7, 9], [5, 7, 5, 0, 0]])
LENGTHS = np.array([5, 3])
# Each row sums to 1; what lies beyond a document's length is not to be read.
ROWS = np.array(
    [
        [
            [1, 0, 0, 0, 0],
            [0.5, 0.5, 0, 0, 0],
            [0.2, 0.3, 0.5, 0, 0],
            [0.4, 0.1, 0.2, 0.3, 0],
            [0.1, 0.1, 0.1, 0.1, 0.6],
        ],
        [[1, 0, 0, 9, 9], [0.25, 0.75, 0, 9, 9], [0.6, 0.3, 0.1, 9, 9], [9] * 5, [9] * 5],
    ]
)[:, None]


def test_links():
    duplicates = [[0, 2, 1], [0, 3, 0], [1, 2, 0]]
    induction = [[0, 2, 2], [0, 3, 1], [1, 2, 1]]
    np.testing.assert_array_equal(naive_roles.links_of_duplicates(TOKENS, LENGTHS), duplicates)
    np.testing.assert_array_equal(naive_roles.links_of_induction(TOKENS, LENGTHS), induction)


def test_on_paper():
    links = np.array([[0, 2, 1], [0, 3, 0], [1, 2, 0]])
    close = lambda got, wanted: np.testing.assert_allclose(got, [wanted], rtol=1e-12)  # noqa: E731
    close(naive_roles.mass(ROWS, links), (0.3 + 0.4 + 0.6) / 3)
    sums, counts = naive_roles.mass_of_files(ROWS, links, [1, 0])
    np.testing.assert_allclose(sums, [[0.6], [0.7]])
    np.testing.assert_array_equal(counts, [1, 2])
    assert [naive_roles.share_at_offset(links, offset) for offset in (1, 2, 3)] == [1 / 3] * 3
    # By offsets 1, 3, 2, since no position has twenty documents.
    one, two, three = (0.5 + 0.3 + 0.2 + 0.1 + 0.25 + 0.3) / 6, (0.2 + 0.1 + 0.1 + 0.6) / 4, (0.4 + 0.1) / 2
    close(naive_roles.permuted_mass(ROWS, LENGTHS, links), (one + three + two) / 3)
    # Key 1 of document 0 from queries 1, 4; key 0 from 0, 1, 4; key 0 of document 1 from 0, 1.
    without = [(0.5 + 0.1) / 2, (1 + 0.5 + 0.1) / 3, (1 + 0.25) / 2]
    close(naive_roles.mass_without_link(ROWS, LENGTHS, links), sum(without) / 3)
    close(naive_roles.argmax_share(ROWS, LENGTHS, links), 2 / 3)
    close(naive_roles.previous_token_mass(ROWS, LENGTHS), one)
    close(naive_roles.offset_mass(ROWS, LENGTHS, -1), 0)
    local = [0, 0.5 - 1 / 2, 0.5 - 2 / 3, 0.7 - 3 / 4, 0.3 - 3 / 5, 0, 0.25 - 1 / 2, 0.9 - 2 / 3]
    close(naive_roles.local_mass(ROWS, LENGTHS), sum(local) / 8)
    close(naive_roles.confidence(ROWS, LENGTHS), (1 + 0.5 + 0.5 + 0.4 + 0.6 + 1 + 0.75 + 0.6) / 8)
    close(naive_roles.first_token_mass(ROWS, LENGTHS), (1 + 0.5 + 0.2 + 0.4 + 0.1 + 1 + 0.25 + 0.6) / 8)
    # 7 is rarer than 5, 9 rarer than both; of two 7s the first counts.
    counts = np.array([9, 0, 0, 0, 0, 3, 0, 2, 0, 1])
    hits = [1, 1, 0, 1, 1, 1, 1, 0]
    chance = [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1, 1 / 2, 1 / 3]
    close(naive_roles.rare_token_share(ROWS, LENGTHS, TOKENS, counts), (sum(hits) - sum(chance)) / 8)
    np.testing.assert_allclose(naive_roles.effect([0.5, 0.2], [0, 0.6]), [0.5, -1])
    assert math.isnan(naive_roles.effect(1.0, 1.0))


def test_entropy():
    uniform = np.tril(np.ones((6, 6)) / np.arange(1, 7)[:, None])[None, None]
    np.testing.assert_allclose(naive_roles.entropy(uniform, [6]), 1)
    sharp = naive_roles.entropy(np.eye(6)[None, None], [6])
    assert 0 < sharp < 2e-3
    full = np.full((1, 1, 4, 4), 1 / 4)
    np.testing.assert_allclose(naive_roles.entropy(full, [4], causal=False), 1)


def test_other_documents_where_twenty_reach():
    """Each document's attention is its number, so the others' mean is known."""
    attention = np.arange(22.0)[:, None, None, None] * np.ones((22, 1, 4, 4))
    lengths = np.array([4] * 21 + [2])
    links = np.array([[3, 3, 1], [3, 3, 2], [21, 1, 0]])
    others = (sum(range(21)) - 3) / 20
    wanted = (2 * others + sum(range(21)) / 21) / 2
    np.testing.assert_allclose(naive_roles.permuted_mass(attention, lengths, links), wanted)


@pytest.mark.parametrize("head", ["induction", "duplicate", "previous", "sink", "rare"])
def test_plants_have_their_role(head):
    plant = planted(head, num_documents=24)
    documents, (layer, number) = plant.documents, plant.head
    attention = plant.attention()[layer]
    score = naive_roles.mass(attention, documents.links)
    assert score[number] > 0.9 and np.delete(score, number).max() < 0.4
    if head in ("induction", "duplicate"):
        links_of = {"induction": naive_roles.links_of_induction, "duplicate": naive_roles.links_of_duplicates}[head]
        np.testing.assert_array_equal(links_of(documents.tokens, documents.lengths), documents.links)
        references = [
            naive_roles.permuted_mass(attention, documents.lengths, documents.links)[number],
            naive_roles.mass_without_link(attention, documents.lengths, documents.links)[number],
            max(naive_roles.share_at_offset(documents.links, offset) for offset in range(32)),
        ]
        assert naive_roles.effect(score[number], max(references)) > 0.8
    if head == "rare":
        shares = naive_roles.rare_token_share(attention, documents.lengths, documents.tokens, documents.counts)
        assert shares[number] > 0.8 and np.delete(shares, number).max() < 0.2


def test_attention_that_fools():
    weights, documents = tricky_attention.offset_on_repeats(seed=0)
    assert naive_roles.mass(weights, documents.links) == naive_roles.share_at_offset(documents.links, 7) == 1
    weights, documents = tricky_attention.looks_at_spaces(seed=0)
    lengths, links = documents.lengths, documents.links
    found, anyway = naive_roles.mass(weights, links), naive_roles.mass_without_link(weights, lengths, links)
    assert naive_roles.effect(found, max(anyway, naive_roles.permuted_mass(weights, lengths, links))) < 0.1 < found
    weights, documents = tricky_attention.saturates(seed=0)
    assert naive_roles.argmax_share(weights, documents.lengths, documents.links) == 1
    assert 0 < naive_roles.entropy(weights, documents.lengths) < 1e-2
    assert linked_documents.BEGIN == documents.tokens[:, 0].max()
