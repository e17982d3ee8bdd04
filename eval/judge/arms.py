"""Arms: other studies, each of one changed condition, that say how far a verdict of this one reaches."""

import dataclasses
import pathlib

from train.config import InputError, differences
from train.workdir import Workdir, read_json

# What may differ between a study and its arm beside the condition: it changes no comparison.
FREE = ("claims.tolerance", "claims.launches", "eval.", "mesh.", "train.checkpoint_every", "train.log_every")
FREE += ("train.warmup_steps", "train.replica_map", "grid.learning", "grid.extensions")
FREE += ("grid.tuning_seeds", "grid.init_seeds", "grid.data_seeds")
RULES = ("margin", "looks")  # of config.claims: verdicts compare where these agree
LONGER = 4  # times the tokens at which 'learns faster' becomes 'beats'


@dataclasses.dataclass(frozen=True)
class Arm:
    """A study beside this one.

    Attributes:
      kind: `tokens`, `scaling` (other scales of the logits), `d_k` (h fixed, d_k varied) or `other`.
      words: its condition, 'train.steps: 500 -> 2000'.
      ratio: its training tokens over this study's.
      verdicts: its results/claims.json by id.
      fingerprint: of its tokens, names and splits.
      other_data: the fingerprint differs from this study's.
    """

    path: str
    kind: str
    words: str
    ratio: float
    verdicts: dict[str, dict]
    fingerprint: str = ""
    other_data: bool = False

    def passed_over(self, claim: str) -> str:
        """Why the arm's verdict on `claim` is not cited, '' where it is."""
        verdict = self.verdicts.get(claim)
        if self.other_data:
            return f"its data, {self.fingerprint[:12]}, are not this study's"
        if verdict is None:
            return f"it holds no verdict on {claim}"
        if verdict["exploratory"]:
            return "its verdict is exploratory"
        return f"its verdict is incomplete: {' '.join(verdict['missing'])}" if verdict["missing"] else ""


def load(paths: list[str], config: dict) -> list[Arm]:
    """The arms in the workdirs `paths` of the study with this `config` (nested dicts, as config.json has it).

    Raises:
      InputError: a folder without verdicts, or a study of other data, judged by another margin or number of looks, or
        without any difference.
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
        for field in RULES:
            if theirs["claims"][field] != config["claims"][field]:
                raise InputError(
                    f"--arms names {path}, judged by claims.{field}={theirs['claims'][field]:g} where this study has "
                    f"{config['claims'][field]:g}; such verdicts do not compare, so run it again in another --workdir "
                    f"with --config.claims.{field}={config['claims'][field]:g}."
                )
        changed = [line for line in differences(config, theirs) if not line.startswith(FREE)]
        of_data = [line for line in changed if line.startswith("data.") and not line.startswith("data.seq_len")]
        if of_data:
            raise InputError(f"--arms names {path}, a study of other data: {'; '.join(of_data)}. Name one of the same.")
        if not changed:
            raise InputError(
                f"--arms names {path}, whose study differs from this one in nothing that an arm may change."
            )
        tokens = [c["train"]["steps"] * c["train"]["batch_size"] * c["data"]["seq_len"] for c in (config, theirs)]
        verdicts = {verdict["id"]: verdict for verdict in claims}
        words, fingerprint = "; ".join(changed), record["data_fingerprint"]
        found.append(Arm(path, _kind(theirs, changed), words, tokens[1] / tokens[0], verdicts, fingerprint))
    return found


def compared(arms: list[Arm], fingerprint: str) -> list[Arm]:
    """`arms` beside a study whose data have this `fingerprint`."""
    return [dataclasses.replace(arm, other_data=arm.fingerprint != fingerprint) for arm in arms]


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
    longer = [arm for arm in arms if arm.kind == "tokens" and arm.ratio >= LONGER and not arm.passed_over("C1")]
    return any(arm.verdicts["C1"]["verdict"] == "supported" for arm in longer)


def lays_it_to_d_k(arms: list[Arm]) -> bool:
    """Whether the loss at d_k = 1 is also higher where h is fixed, and with the best scale of the logits."""
    cited = [arm for arm in arms if not arm.passed_over("C2")]
    return {"d_k", "scaling"} <= {arm.kind for arm in cited if (arm.verdicts["C2"]["low"] or 0) > 0}
