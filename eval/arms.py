"""Arms: other studies, each of one changed condition, that say how far a verdict of this one reaches."""

import dataclasses
import pathlib

from train.config import InputError, differences
from train.workdir import Workdir, read_json

# What may differ between a study and its arm beside the condition: it changes no comparison.
FREE = ("claims.", "eval.", "mesh.", "train.checkpoint_every", "train.log_every", "train.warmup_steps", "grid.learning")
FREE += ("grid.extensions", "grid.tuning_seeds", "grid.init_seeds", "grid.data_seeds", "train.replica_map")
LONGER = 4  # times the tokens at which 'learns faster' becomes 'beats'


@dataclasses.dataclass(frozen=True)
class Arm:
    """A study beside this one.

    Attributes:
      kind: `tokens`, `scaling` (other scales of the logits), `d_k` (h fixed, d_k varied) or `other`.
      words: its condition, 'train.steps: 500 -> 2000'.
      ratio: its training tokens over this study's.
      verdicts: its results/claims.json by id.
    """

    path: str
    kind: str
    words: str
    ratio: float
    verdicts: dict[str, dict]


def load(paths: list[str], config: dict) -> list[Arm]:
    """The arms in the workdirs `paths` of the study with this `config` (nested dicts, as config.json has it).

    Raises:
      InputError: a folder without verdicts, or a study of other data or without any difference.
    """
    found = []
    for path in paths:
        workdir = Workdir(pathlib.Path(path))
        record, claims = workdir.record(), read_json(workdir.results / "claims.json")
        if record is None or not claims:
            raise InputError(
                f"--arms names {path}, which holds no verdicts (results/claims.json); run that study first."
            )
        theirs = record["config"]
        changed = [line for line in differences(config, theirs) if not line.startswith(FREE)]
        if not changed:
            raise InputError(
                f"--arms names {path}, whose study differs from this one in nothing that an arm may change."
            )
        tokens = [c["train"]["steps"] * c["train"]["batch_size"] * c["data"]["seq_len"] for c in (config, theirs)]
        verdicts = {verdict["id"]: verdict for verdict in claims}
        found.append(Arm(path, _kind(theirs, changed), "; ".join(changed), tokens[1] / tokens[0], verdicts))
    return found


def _kind(theirs: dict, changed: list[str]) -> str:
    fields = {line.split(":")[0] for line in changed}
    if fields <= {"train.steps"}:
        return "tokens"
    if fields <= {"grid.logit_scales"}:
        return "scaling"
    if fields <= {"grid.num_heads", "grid.d_k", "grid.d_model"} and len(theirs["grid"]["num_heads"]) == 1:
        return "d_k"
    return "other"


def holds_longer(arms: list[Arm]) -> bool:
    """Whether C1 is supported at LONGER times the tokens or more."""
    return any(
        arm.kind == "tokens" and arm.ratio >= LONGER and arm.verdicts["C1"]["verdict"] == "supported" for arm in arms
    )


def lays_it_to_d_k(arms: list[Arm]) -> bool:
    """Whether the loss at d_k = 1 is also higher where h is fixed, and with the best scale of the logits."""
    kinds = {arm.kind for arm in arms if (arm.verdicts["C2"]["low"] or 0) > 0}
    return {"d_k", "scaling"} <= kinds
