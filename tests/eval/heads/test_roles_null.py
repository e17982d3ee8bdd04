"""How often heads that have learnt nothing are called by a role, and heads that have are not."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eval.heads.roles import effects, sums, texts
from eval.heads.roles.effects import LOCAL, OFFSET, PREVIOUS
from eval.heads.roles.texts import DUPLICATE, INDUCTION
from eval.judge.claims.c5_specialisation import Best, answers
from eval.judge.rule_m import YES
from mha.transformer import ModelConfig, Transformer

DRAWS, LAYERS, POOL = 1_000, 2, 2_000
CONTENT, POSITION = 0.1, 0.5
SEEN = {split: texts.repeats(np.arange(1, 20), 40, 24, 0, seed) for seed, split in enumerate(("tune", "test"))}
AT = {relation: texts.best_offset(SEEN["tune"].linked(relation))[0] for relation in (0, 1)}
RELATIONS = {DUPLICATE: 0, INDUCTION: 1}


def of_sums(found: sums.Sums, split: str) -> dict[str, effects.Effects]:
    """The effects of every role."""
    seen, by_role = SEEN[split], {}
    for role, relation in RELATIONS.items():
        links = seen.linked(relation)
        at_offset = np.bincount(links.document[links.query - links.key == AT[relation]], minlength=seen.num_files)
        by_role[role] = effects.content(found, relation, at_offset, CONTENT)
    return by_role | {role: effects.positional(found, role, POSITION) for role in (PREVIOUS, OFFSET, LOCAL)}


def measured(run) -> tuple[dict, dict, dict]:
    """The effects on tune and on test of a model that `run` (texts, offsets) sums up, and what a model among the
    untrained would have: the largest effects on test."""
    on_tune = run(SEEN["tune"], None)
    own = effects.best_offsets(on_tune, apart=(1, -1))
    on_test = run(SEEN["test"], own)
    tune, test = of_sums(on_tune, "tune"), of_sums(on_test, "test")
    tune[OFFSET] = tune[OFFSET]._replace(effect=effects.at_best_offset(on_tune, (1, -1)))
    largest = {role: float(found.effect.max()) for role, found in test.items()}
    largest[OFFSET] = float(effects.at_best_offset(on_test, (1, -1)).max())
    return tune, test, largest


def says(tune: dict, test: dict, bank: list[dict]) -> dict[str, str]:
    roles = {}
    for role, found in test.items():
        head = np.unravel_index(np.argmax(tune[role].effect), found.effect.shape)
        outdoes = bool(found.effect[head] > max(one[role] for one in bank))
        threshold = CONTENT if role in RELATIONS else POSITION
        roles[role] = Best(float(found.above[head]), outdoes, float(found.most.max()), threshold)
    return answers(roles)


def random_models(d_model: int, heads: int, count: int):
    """What `measured` says of models as they are drawn."""
    model = ModelConfig(20, 24, d_model, heads, d_model // heads, (4,) * LAYERS)
    tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    drawn = jax.jit(jax.vmap(lambda seed: Transformer(model).lazy_init(jax.random.key(seed), tokens)["params"]))(
        np.arange(count, dtype=np.uint32)
    )
    drawn = jax.device_get(drawn)
    for place in range(count):
        params = jax.tree.map(lambda leaf, place=place: leaf[place], drawn)
        yield measured(lambda seen, own, params=params: sums.of_model(model, params, seen, sums.Profile(own)))


@pytest.mark.slow
@pytest.mark.parametrize(("d_model", "heads"), [(8, 8), (16, 4), (64, 1)])
def test_random_models_are_called_by_no_role(d_model, heads):
    found = list(random_models(d_model, heads, POOL))
    draw, largest = np.random.default_rng(0), [each[2] for each in found]
    said = []
    for tune, test, _ in found[:DRAWS]:
        bank = draw.choice(np.arange(DRAWS, POOL), 20 * LAYERS, replace=False)
        said.append(says(tune, test, [largest[one] for one in bank]))
    limit = lambda share: share + 3 * math.sqrt(share * (1 - share) / DRAWS)  # noqa: E731
    for role in said[0]:
        assert np.mean([each[role] == YES for each in said]) <= limit(0.05), role
    assert np.mean([YES in each.values() for each in said]) <= 0.1


def with_a_head(rng: np.random.Generator, role: str, effect: float, seen: texts.Texts, own) -> sums.Sums:
    """Attention of two layers of four random heads, one of which puts so much more on the role's keys."""
    count, length = len(seen.tokens), seen.tokens.shape[1] - 1
    logits = rng.normal(size=(count, LAYERS, 4, length, length))
    weights = np.exp(logits) * np.tril(np.ones((length, length)))
    weights /= weights.sum(axis=4, keepdims=True)
    goal = np.zeros((count, length, length))
    if role in RELATIONS:
        links = seen.linked(RELATIONS[role])
        goal[links.document, links.query, links.key] = 1
    else:
        for offset in {PREVIOUS: (1,), OFFSET: (4,), LOCAL: (1, 2, 3)}[role]:
            goal[:, np.arange(offset, length), np.arange(length - offset)] = 1
    goal /= np.maximum(goal.sum(axis=2, keepdims=True), 1e-9)
    asked = goal.sum(axis=2, keepdims=True)
    weights[:, 1, 2] = (1 - effect * asked) * weights[:, 1, 2] + effect * goal
    return sums.of_attention(weights, seen, True, own)


@pytest.mark.slow
@pytest.mark.parametrize("role", [DUPLICATE, INDUCTION, PREVIOUS, OFFSET, LOCAL])
def test_a_head_of_twice_the_threshold_is_called(role):
    bank = [largest for *_, largest in random_models(16, 4, 20 * LAYERS)]
    effect, answered = 2 * CONTENT if role in RELATIONS else 1.0, []
    for draw in range(40):
        rng = np.random.default_rng(draw)
        tune, test, _ = measured(lambda seen, own, rng=rng: with_a_head(rng, role, effect, seen, own))
        answered.append(says(tune, test, bank)[role] == YES)
    assert np.mean(answered) >= 0.9
