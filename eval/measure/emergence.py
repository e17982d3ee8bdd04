"""When heads take their roles: effects at every kept checkpoint, beside what the roles' targets cost then."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from eval.heads.roles import sums, targets, watched
from eval.heads.roles.sums import Sums
from eval.heads.roles.texts import Texts
from eval.heads.roles.watched import Role
from eval.measure import roles
from eval.restore import Restored
from mha.transformer import ModelConfig
from train.config import StudyConfig

IN_STUDY = True
MOST_TEXTS = 128  # of each kind
COLUMNS = ["replica", "step", "role", "text", "positional", "layer", "head", "queries"]
COLUMNS += ["effect", "low", "high", "largest", "linked", "others"]


class _Followed(NamedTuple):
    """A role of one replica: the role's best fixed `offset`, and the (layer, head) that bears it best at the end, both
    on tune."""

    role: Role
    offset: int
    head: tuple[int, int]


def lacks(config: StudyConfig, model: ModelConfig) -> str:
    if not config.train.keep_checkpoints:
        return (
            "roles over training are those at kept checkpoints, and train.keep_checkpoints is empty; train with "
            "--config.train.keep_checkpoints=100,200,400."
        )
    return roles.lacks(config, model)


def settings(config: StudyConfig) -> dict:
    return {"texts": config.heads.texts, "steps": config.train.keep_checkpoints}


def measure(restored: Restored, split: str, chosen: dict) -> pd.DataFrame:
    """One row a judged replica that did not diverge, step (those of train.keep_checkpoints, and the last) and role, on
    at most MOST_TEXTS texts of each kind: `layer` and `head` of the head that bears the role best at the end, chosen on
    tune, its `effect` at the step (as in roles, `low` to `high` 95 % over files), `largest`, the largest of any head
    then, and, of causal models, what the targets of queries with a link cost (`linked`, nats) and those of the
    `others`. Of a role that an offset alone defines every query has a link, but the first of a text.

    For `fixed offset` each head is held to the offset at which it attends most at the end.
    """
    places, most = restored.judged, chosen["texts"]
    if not places:
        return pd.DataFrame(columns=COLUMNS)
    on_tune, model = watched.texts_of(restored, "tune", most), restored.pack.model
    ended, seen = watched.passes(restored, "tune", most), watched.texts_of(restored, split, most)
    own = {place: watched.own_offsets(ended[place]) for place in places}
    followed = {}
    for place in places:
        fewer = _fewer(on_tune[place])
        found = _passed(model, restored.params_of(place), fewer, own[place])
        followed[place] = _followed(on_tune[place], fewer, found, model.causal)
    tables = []
    for step in (*restored.kept, restored.step):
        then = restored if step == restored.step else restored.at(step)
        for place in places:
            params = then.params_of(place)
            rows = _of_replica(model, params, _fewer(seen[place]), followed[place], own[place])
            tables.append(rows.assign(replica=restored.pack.replicas[place].name, step=step))
    return pd.concat(tables, ignore_index=True)[COLUMNS]


def _fewer(seen: dict[str, Texts]) -> dict[str, Texts]:
    return {text: each.some(MOST_TEXTS) for text, each in seen.items()}


def _passed(model: ModelConfig, params: dict, seen: dict[str, Texts], own: np.ndarray) -> dict[str, Sums]:
    profile, width = sums.Profile(own), watched.width_of(seen)
    return {text: sums.of_model(model, params, each, profile, width) for text, each in seen.items()}


def _followed(seen: dict[str, Texts], fewer: dict[str, Texts], found: dict[str, Sums], causal: bool) -> list[_Followed]:
    """The roles in the texts of tune, with the best of each head among what was `found` in the `fewer` at the end."""
    followed = []
    for role in watched.roles_of(seen, causal):
        offset = watched.fixed_offset(role, seen)
        effect = watched.effects_of(role, found[role.text], fewer[role.text], offset, 0.0, 0.0).effect
        if np.isfinite(effect).any():
            head = np.unravel_index(np.nanargmax(effect), effect.shape)
            followed.append(_Followed(role, offset, tuple(map(int, head))))
    return followed


def _of_replica(
    model: ModelConfig, params: dict, seen: dict[str, Texts], followed: list[_Followed], own: np.ndarray
) -> pd.DataFrame:
    """A row a role.

    Args:
      own: the offset of each head, (L, H).
    """
    found, rows = _passed(model, params, seen, own), []
    losses = {text: targets.losses(model, params, each) for text, each in seen.items()} if model.causal else {}
    for role, offset, head in followed:
        of_role = watched.effects_of(role, found[role.text], seen[role.text], offset, 0.0, 0.0)
        linked, others = _costs(role, seen, losses)
        about = {"role": role.name, "text": role.text, "positional": role.positional, "layer": head[0], "head": head[1]}
        values = {name: float(getattr(of_role, name)[head]) for name in ("effect", "low", "high")}
        largest = float(np.nanmax(of_role.effect)) if of_role.queries else np.nan
        costs = {"largest": largest, "linked": linked, "others": others}
        rows.append({**about, "queries": of_role.queries, **values, **costs})
    return pd.DataFrame(rows)


def _costs(role: Role, seen: dict[str, Texts], losses: dict[str, np.ndarray]) -> tuple[float, float]:
    if not losses:
        return float("nan"), float("nan")
    if role.relation < 0:
        return targets.split(losses[role.text], watched.NONE)[1], float("nan")
    return targets.split(losses[role.text], seen[role.text].linked(role.relation))
