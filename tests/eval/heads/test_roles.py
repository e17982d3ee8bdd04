"""Measures of heads against slow ones, and against heads whose role is known."""

import dataclasses

import numpy as np
import pytest

from eval.heads.roles import edges, effects, sums, texts
from eval.heads.roles.texts import Texts
from mha.transformer import Transformer, weights_in_blocks
from tests.eval import naive_roles, planted, tricky_attention
from train.data.relations.language import Links


def random_texts(rng: np.random.Generator, count: int, length: int, vocab: int, relations: int, causal: bool) -> Texts:
    """Ragged texts with links at random, some queries with several keys, three texts a file."""
    tokens = rng.integers(1, vocab, (count, length + 1))
    lengths = rng.integers(length // 2, length + 1, count)
    rows = [
        (document, query, key, relation)
        for document in range(count)
        for query in range(1, lengths[document])
        for relation in range(relations)
        if rng.random() < 0.4
        for key in rng.choice(query + 1 if causal else lengths[document], 1 + query % 2, replace=False)
    ]
    links = Links(*np.array(rows, np.int32).T)
    return Texts(tokens, lengths, np.arange(count) // 3, links, tuple(map(str, range(relations))))


def of_plant(plant: planted.Plant) -> Texts:
    """The plant's documents, two a file; its links are relation 0."""
    documents = plant.documents
    tokens = np.pad(np.where(documents.targets >= 0, documents.targets, 0)[:, -1:], ((0, 0), (0, 0)))
    tokens = np.concatenate([documents.tokens, tokens], axis=1)
    rows = documents.links.astype(np.int32).reshape(-1, 3).T
    links = Links(*rows, np.zeros(rows.shape[1], np.int32))
    file = np.arange(len(tokens)) // 2
    return Texts(tokens, documents.lengths, file, links, ("planted",), documents.counts)


def measured(plant: planted.Plant, relation: bool = True):
    """Effects of every head on the plant's links (threshold .1), or its sums."""
    seen = of_plant(plant)
    found = sums.of_model(plant.config, plant.params, seen, sums.Profile())
    if not relation:
        return seen, found
    offset = texts.best_offset(seen.links)[0]
    at_offset = np.bincount(
        seen.file[seen.links.document[seen.links.query - seen.links.key == offset]], minlength=seen.num_files
    )
    return seen, effects.content(found, 0, at_offset, 0.1)


def others_than(plant: planted.Plant, values_LH: np.ndarray) -> np.ndarray:
    """The values of all heads but the plant and those that it reads from."""
    kept = np.ones(values_LH.shape, bool)
    for head in (plant.head, *plant.sources):
        kept[head] = False
    return values_LH[kept]


CONTENT = ("induction", "duplicate", "syntactic", "coreference")


@pytest.mark.parametrize("head", CONTENT)
def test_a_planted_head_of_content_is_called_and_no_other(head):
    plant = planted.planted(head, num_documents=64)
    seen, found = measured(plant)
    assert found.mass[plant.head] > 0.9
    assert found.effect[plant.head] == found.effect.max() > 0.7
    assert found.least[plant.head] > 0.1 and found.above[plant.head] < 1e-6
    assert others_than(plant, found.least).max() < 0.1
    assert others_than(plant, found.above).min() > 0.05


@pytest.mark.parametrize("head", CONTENT)
def test_taking_the_edge_out_of_the_plant_raises_the_loss_and_out_of_others_does_not(head):
    plant = planted.planted(head, num_documents=32)
    seen = of_plant(plant)
    layers, heads = plant.config.num_layers, plant.config.num_heads
    chosen = np.zeros((3, layers, heads), bool)
    chosen[0][plant.head] = True
    other = next(place for place in np.ndindex(layers, heads) if place not in (plant.head, *plant.sources))
    chosen[1][other] = True
    chosen[2][:] = True
    found = edges.without(plant.config, plant.params, seen, seen.links, chosen)
    rise = found.rise_SF.sum(axis=1) / found.queries_F.sum()
    assert rise[0] > 0.5 and abs(rise[1]) < 0.1 * rise[0] and rise[2] > 0.5


@pytest.mark.parametrize(("head", "name"), [("previous", effects.PREVIOUS), ("local", effects.LOCAL)])
def test_a_planted_positional_head_is_called_and_no_other(head, name):
    plant = planted.planted(head, num_documents=64)
    _, sums_ = measured(plant, relation=False)
    found = effects.positional(sums_, name, 0.5)
    assert found.effect[plant.head] == found.effect.max() and found.least[plant.head] > 0.5
    assert others_than(plant, found.least).max() < 0.5


@pytest.mark.parametrize("offset", [-2, -5])
def test_a_planted_offset_is_each_heads_own(offset):
    plant = planted.planted("offset", offset=offset, num_documents=64)
    seen, first = measured(plant, relation=False)
    own = effects.best_offsets(first, apart=(1, -1))
    assert own[plant.head] == -offset
    again = sums.of_model(plant.config, plant.params, seen, sums.Profile(own))
    found = effects.positional(again, effects.OFFSET, 0.5)
    assert found.effect[plant.head] == found.effect.max() and found.least[plant.head] > 0.5
    assert found.effect == pytest.approx(effects.at_best_offset(first, (1, -1)), rel=1e-5)


def test_a_masked_models_planted_offset_ahead_is_its_next_token():
    plant = planted.planted("offset unseen", offset=1, num_documents=64)
    found = effects.positional(measured(plant, relation=False)[1], effects.NEXT, 0.5)
    assert found.effect[plant.head] == found.effect.max() and found.least[plant.head] > 0.5


@pytest.mark.parametrize(("head", "measure"), [("sink", "first"), ("rare", "rare")])
def test_a_planted_sink_and_a_planted_rare_head_stand_out_in_the_profile(head, measure):
    plant = planted.planted(head, num_documents=64)
    value = measured(plant, relation=False)[1].profile[measure].sum(axis=2)
    assert value[plant.head] == value.max() and value[plant.head] > 2 * others_than(plant, value).max()


@pytest.mark.parametrize("head", ["dead", "idle"])
def test_a_head_that_writes_nothing_is_inactive_whatever_it_looks_at(head):
    plant = planted.planted(head, num_documents=16)
    found = measured(plant, relation=False)[1]
    written = found.profile["output"].sum(axis=2) / found.tokens_F.sum()
    assert written[plant.head] < 1e-6 < others_than(plant, written).min()
    if head == "idle":
        assert effects.positional(found, effects.PREVIOUS, 0.5).least[plant.head] > 0.5


def test_a_broad_head_has_the_largest_entropy():
    plant = planted.planted("broad", num_documents=16)
    found = measured(plant, relation=False)[1]
    entropy = found.profile["entropy"].sum(axis=2) / found.tokens_F.sum()
    assert entropy[plant.head] > 0.99


def attention_of(rng: np.random.Generator, seen: Texts, heads: int, causal: bool) -> np.ndarray:
    """(texts, 2 layers, heads, T, T), rows of zeros beyond a text's end."""
    count, length = len(seen.tokens), seen.tokens.shape[1] - 1
    inside = np.arange(length) < seen.length[:, None]
    visible = inside[:, :, None] & inside[:, None] & (np.tril(np.ones((length, length), bool)) if causal else True)
    logits = 3 * rng.normal(size=(count, 2, heads, length, length))
    weights = np.where(visible[:, None, None], np.exp(logits), 0)
    return weights / np.maximum(weights.sum(axis=4, keepdims=True), 1e-30)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("count", [12, 60])
def test_sums_are_those_of_slow_definitions(count, causal):
    rng = np.random.default_rng(count)
    seen = random_texts(rng, count, 12, 9, 2, causal)
    attention, files = attention_of(rng, seen, 3, causal), seen.file.tolist()
    own = rng.integers(-3 if not causal else 2, 5, (2, 3))
    found = sums.of_attention(attention, seen, causal, own)
    for layer in range(2):
        of_layer = attention[:, layer]
        for relation in range(2):
            links = np.stack(seen.linked(relation)[:3], axis=1)
            mass, counts = naive_roles.mass_of_files(of_layer, links, files)
            assert found.queries_RF[relation] == pytest.approx(counts)
            assert found.mass_RLHF[relation, layer] == pytest.approx(mass.T, abs=1e-5)
            total = counts.sum()
            permuted = naive_roles.permuted_mass(of_layer, seen.length, links)
            assert found.permuted_RLHF[relation, layer].sum(axis=1) / total == pytest.approx(permuted, abs=1e-6)
            elsewhere = naive_roles.mass_without_link(of_layer, seen.length, links, causal)
            assert found.elsewhere_RLHF[relation, layer].sum(axis=1) / total == pytest.approx(elsewhere, abs=1e-6)
            top = naive_roles.argmax_share(of_layer, seen.length, links)
            assert found.top_RLHF[relation, layer].sum(axis=1) / total == pytest.approx(top, abs=1e-6)
            at_offset = (links[:, 1] - links[:, 2] == 2).sum() / total
            assert at_offset == pytest.approx(naive_roles.share_at_offset(links, 2))
        queries = found.tokens_F.sum()
        previous = naive_roles.previous_token_mass(of_layer, seen.length)
        assert effects.positional(found, effects.PREVIOUS, 0.5).effect[layer] == pytest.approx(previous, abs=1e-6)
        if causal:
            local = naive_roles.local_mass(of_layer, seen.length) * seen.length.sum() / queries
            assert effects.positional(found, effects.LOCAL, 0.5).effect[layer] == pytest.approx(local, abs=1e-6)
        else:
            ahead = naive_roles.offset_mass(of_layer, seen.length, -1)
            followed = (seen.length - 1).sum()
            first = np.sum([of_layer[text, :, 0, 1] for text in range(count)], axis=0)
            assert found.next_LHF[layer].sum(axis=1) + first == pytest.approx(ahead * followed, rel=1e-5)
        for head in range(3):
            offset = int(own[layer, head])
            wanted = sum(
                of_layer[text, head, query, query - offset]
                for text in range(count)
                for query in range(1, seen.length[text])
                if 0 <= query - offset < seen.length[text]
            )
            assert found.own_LHF[layer, head].sum() == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_sums_of_a_model_are_those_of_its_attention():
    plant = planted.planted("duplicate", num_documents=40, ragged=True)
    seen = of_plant(plant)
    attention = np.moveaxis(plant.attention(), 0, 1)
    ours, theirs = sums.of_model(plant.config, plant.params, seen), sums.of_attention(attention, seen, True)
    for name in ("queries_RF", "mass_RLHF", "permuted_RLHF", "elsewhere_RLHF", "near_OLHF", "offsets_LHO", "uniform_F"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), abs=1e-4, nan_ok=True), name


def test_the_profile_is_that_of_slow_definitions():
    plant = planted.planted("previous", num_documents=30, ragged=True)
    seen = of_plant(plant)
    rng = np.random.default_rng(0)
    distinct = np.stack([rng.permutation(np.arange(plant.config.vocab_size))[:20] for _ in range(30)])
    seen = Texts(np.pad(distinct, ((0, 0), (0, 1))), seen.length.clip(max=20), seen.file, seen.links, seen.relations)
    seen = dataclasses.replace(seen, links=texts.of_copies(seen.tokens[:, :-1], seen.length), relations=("d", "i"))
    counts = rng.permutation(np.arange(1, plant.config.vocab_size + 1))
    seen = dataclasses.replace(seen, counts=counts)
    segments = (np.arange(20) < seen.length[:, None]).astype(int)
    _, intermediates = Transformer(plant.config).apply(
        {"params": plant.params}, seen.tokens[:, :-1], segments, None, True
    )
    found = sums.of_model(plant.config, plant.params, seen, sums.Profile())
    queries, every = found.tokens_F.sum(), seen.length.sum()
    for layer in range(plant.config.num_layers):
        weights = [np.asarray(w) for _, _, w in weights_in_blocks(plant.config, intermediates, layer, segments)]
        attention = np.concatenate(weights).astype(np.float64)
        mean = {name: values[layer].sum(axis=1) / queries for name, values in found.profile.items()}
        assert mean["entropy"] == pytest.approx(naive_roles.entropy(attention, seen.length), abs=1e-5)
        for name, slow in (("confidence", naive_roles.confidence), ("first", naive_roles.first_token_mass)):
            wanted = (slow(attention, seen.length) * every - len(seen.tokens)) / queries
            assert mean[name] == pytest.approx(wanted, abs=1e-5)
        rare = naive_roles.rare_token_share(attention, seen.length, seen.tokens[:, :-1], counts) * every / queries
        assert mean["rare"] == pytest.approx(rare, abs=1e-5)


def test_links_of_copies_are_those_of_slow_definitions():
    rng = np.random.default_rng(1)
    tokens, lengths = rng.integers(1, 5, (6, 15)), rng.integers(4, 16, 6)
    tokens[:, 0] = 0
    found = texts.of_copies(tokens, lengths)
    slow = naive_roles.links_of_duplicates(tokens, lengths), naive_roles.links_of_induction(tokens, lengths)
    for relation, wanted in enumerate(slow):
        ours = np.stack([column[found.relation == relation] for column in found[:3]], axis=1)
        assert {*map(tuple, ours.tolist())} == {*map(tuple, wanted.tolist())}


def of_arrays(case: tricky_attention.Attention):
    """Effects of attention (N, H, T, T) given with its documents and links."""
    documents = case.documents
    links = Links(*documents.links.astype(np.int32).T, np.zeros(len(documents.links), np.int32))
    tokens = np.pad(documents.tokens, ((0, 0), (0, 1)))
    seen = Texts(tokens, documents.lengths, np.arange(len(tokens)), links, ("role",))
    found = sums.of_attention(case.weights[:, None], seen, True)
    offset = texts.best_offset(links)[0]
    at_offset = np.bincount(links.document[links.query - links.key == offset], minlength=len(tokens))
    return effects.content(found, 0, at_offset, 0.1)


@pytest.mark.parametrize("case", [tricky_attention.saturates, tricky_attention.falls_back])
def test_attention_that_is_right_is_called_though_it_saturates_or_falls_back(case):
    found = of_arrays(case(0))
    assert found.effect.max() > 0.9 and found.least.max() > 0.1


def test_attention_that_splits_with_itself_has_half_the_effect():
    found = of_arrays(tricky_attention.splits_with_itself(0))
    assert 0.3 < found.effect.max() < 0.7 and found.least.max() > 0.1


@pytest.mark.parametrize("case", [tricky_attention.looks_at_spaces, tricky_attention.offset_on_repeats])
def test_attention_that_only_looks_right_is_not_called(case):
    found = of_arrays(case(0))
    assert found.effect.max() < 0.1 and found.least.max() < 0.1 and found.above.min() > 0.05
