"""What a linear probe reads of each role's key in every head's output: a second opinion that decides nothing.

A head of a later layer reads second-hand what an earlier one found (.9 in layer 1 of models whose layer 0 does the
work), so that a probe that succeeds says that something is there, not who brought it.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from eval.heads.roles import probing, texts, watched
from eval.heads.roles.blocks import block_size
from eval.heads.roles.effects import NEXT, PREVIOUS
from eval.heads.roles.probing import Task
from eval.heads.roles.texts import FEWEST_LINKS, Texts
from eval.heads.roles.watched import Role
from eval.measure import roles
from eval.restore import Restored
from mha.transformer import ModelConfig, Transformer
from train.config import StudyConfig
from train.data.relations.language import Links

IN_STUDY = False
MOST_TEXTS = 256  # of each kind and split
MOST_QUERIES = 2_000  # of each role and split
MOST_ROLES = 12  # those with the most queries on tune
RESIDUAL = -1  # in place of a head: the residual stream that enters its layer
COLUMNS = ["replica", "role", "text", "layer", "head", "accuracy", "control", "chance", "classes", "queries"]
KEY_AT = {PREVIOUS: 1, NEXT: -1}  # offsets of roles without links


lacks = roles.lacks


def settings(config: StudyConfig) -> dict:
    return {"texts": min(config.heads.texts, MOST_TEXTS)}


def measure(restored: Restored, split: str, chosen: dict) -> pd.DataFrame:
    """On `test` alone, one row a judged replica that did not diverge, role, layer and head, of which -1 is the residual
    stream that enters the layer: `accuracy` of a probe (logistic regression, fitted on tune) that tells, at the queries
    with a link, which of the `classes` most frequent tokens stands on the linked key (the latest of several);
    `control`, the same of the control task (probing.control_labels), so that accuracy - control is the selectivity of
    Hewitt and Liang 2019; `chance`, that of saying the most frequent class; and how many `queries` of test it is scored
    on.

    A role whose key is any of several near tokens, or the head's own offset, has no token to tell and is left out, as
    are those beyond the MOST_ROLES with the most queries.
    """
    tables = []
    for place in restored.judged if split == "test" else ():
        seen = [watched.texts_of(restored, which, chosen["texts"])[place] for which in ("tune", "test")]
        rows = of_replica(restored.pack.model, restored.params_of(place), *seen)
        tables.append(rows.assign(replica=restored.pack.replicas[place].name))
    return pd.concat(tables, ignore_index=True)[COLUMNS] if tables else pd.DataFrame(columns=COLUMNS)


def of_replica(model: ModelConfig, params: dict, tune: dict[str, Texts], test: dict[str, Texts]) -> pd.DataFrame:
    """The rows of one replica, less its name."""
    asked, tables = _tasks(tune, test, model.causal), [pd.DataFrame(columns=COLUMNS)]
    for text in tune:
        mine = [(role, *tasks) for role, *tasks in asked if role.text == text]
        fitted, scored = (
            outputs(model, params, seen[text], [pair[which] for pair in mine]) for which, seen in ((1, tune), (2, test))
        )
        for (role, on_tune, on_test), one, other in zip(mine, fitted, scored, strict=True):
            tables.append(_of_role(role, on_tune, on_test, one, other))
    return pd.concat(tables[1:] or tables, ignore_index=True)


def _tasks(tune: dict[str, Texts], test: dict[str, Texts], causal: bool) -> list[tuple[Role, Task, Task]]:
    """Of the roles with the most queries what probes are fitted to, and scored on."""
    found = []
    for role in watched.roles_of(tune, causal):
        if role.relation < 0 and role.name not in KEY_AT:
            continue
        both = [(_links(role, seen[role.text]), seen[role.text].tokens) for seen in (tune, test)]
        among = probing.classes(*both[0])
        if len(among) < 2:
            continue
        tasks = [probing.task(links, tokens, among, MOST_QUERIES) for links, tokens in both]
        if min(len(task.label) for task in tasks) >= FEWEST_LINKS:
            found.append((texts.num_queries(both[0][0]), role, *tasks))
    found.sort(key=lambda each: -each[0])
    return [each[1:] for each in found[:MOST_ROLES]]


def _links(role: Role, seen: Texts) -> Links:
    return seen.linked(role.relation) if role.relation >= 0 else texts.at_offsets(seen, (KEY_AT[role.name],))


def _of_role(role: Role, fitted: Task, scored: Task, one: list[np.ndarray], other: list[np.ndarray]) -> pd.DataFrame:
    """A row a layer and head.

    Args:
      one, other: what `outputs` gives at the queries of `fitted` and `scored`.
    """
    control, rows = probing.control_labels(fitted, scored, seed=0), []
    about = {"role": role.name, "text": role.text, "chance": probing.chance(fitted.label, scored.label)}
    about |= {"classes": int(fitted.label.max()) + 1, "queries": len(scored.label)}
    for layer, head, (ours, theirs) in _features(one, other):
        accuracy = probing.accuracy(ours, fitted.label, theirs, scored.label)
        by_heart = probing.accuracy(ours, control[0], theirs, control[1])
        rows.append({**about, "layer": layer, "head": head, "accuracy": accuracy, "control": by_heart})
    return pd.DataFrame(rows)


def _features(one: list[np.ndarray], other: list[np.ndarray]) -> Iterator[tuple[int, int, tuple]]:
    """Of each layer the residual stream and each head's output, in both."""
    (z, residual), (other_z, other_residual) = one, other
    for layer in range(z.shape[1]):
        yield layer, RESIDUAL, (residual[:, layer], other_residual[:, layer])
        for head in range(z.shape[2]):
            yield layer, head, (z[:, layer, head], other_z[:, layer, head])


def outputs(model: ModelConfig, params: dict, seen: Texts, tasks: list[Task]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each task at its queries what the heads give before their projection, (queries, layers, heads, d_k), and the
    residual stream that enters each layer, (queries, layers, d_model)."""
    size, parts = block_size(model, seen), [([], []) for _ in tasks]
    inside = np.int32(np.arange(seen.tokens.shape[1] - 1) < seen.length[:, None])
    order = [np.argsort(task.document, kind="stable") for task in tasks]
    for first in range(0, len(seen.tokens), size):
        tokens, segments = seen.tokens[first : first + size, :-1], inside[first : first + size]
        more = (0, size - len(tokens)), (0, 0)
        of_block = _of_block(model, params, np.int32(np.pad(tokens, more)), np.pad(segments, more))
        found = [np.asarray(each) for each in of_block]
        for task, rows, part in zip(tasks, order, parts, strict=True):
            mine = rows[(task.document[rows] >= first) & (task.document[rows] < first + size)]
            for values, kept in zip(found, part, strict=True):
                kept.append(values[:, task.document[mine] - first, task.query[mine]].swapaxes(0, 1))
    back = [np.argsort(rows, kind="stable") for rows in order]
    return [tuple(np.concatenate(kept)[place] for kept in part) for part, place in zip(parts, back, strict=True)]


@functools.partial(jax.jit, static_argnames="model")
def _of_block(model: ModelConfig, params, tokens, segments):
    """(layers, texts, T, heads, d_k) and (layers, texts, T, d_model)."""
    _, seen = Transformer(model).apply({"params": params}, tokens, segments)
    return jnp.stack(seen["heads"]), jnp.stack(seen["residual"][:-1])
