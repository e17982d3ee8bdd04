"""Arms: other studies, each of one changed condition, that say how far a verdict of this one reaches."""

import pathlib
from dataclasses import dataclass, field

import pandas as pd

from train.config import differences, refuse
from train.run import starts
from train.workdir import Workdir, read_json

# What may differ between a study and its arm beside the condition: it changes no comparison.
FREE = ("claims.tolerance", "claims.launches", "eval.", "mesh.", "train.checkpoint_every", "train.log_every",
        "train.warmup_steps", "train.replica_map", "grid.learning", "grid.extensions",
        "grid.tuning_seeds", "grid.init_seeds", "grid.data_seeds")  # fmt: skip
RULES = ("margin", "looks")  # of config.claims: verdicts compare where these agree
# The same of studies of doses, whose arms are C4's secondary cells, and what they differ in.
FREE_OF_DOSES = ("grid.num_heads", "dose.relations", "dose.starts", "eval.", "mesh.", "claims.")
LACKS = ("verdicts (results/claims.json); run that study",
         "runs of a study of doses (results/dose.csv); run one there")  # fmt: skip
CONDITIONS = ("data.demand", "data.sources", "model.num_layers")


@dataclass(frozen=True, eq=False)
class Arm:
    """A study beside this one.

    Attributes:
      config: its own, as nested dicts.
      words: its condition, 'train.steps: 500 -> 2000', or of doses 'switch demand, tagged sources, 2 layers'.
      kind: `tokens`, `scaling` (other scales of the logits), `d_k` (h fixed, d_k varied) or `other`.
      ratio: its training tokens over this study's.
      verdicts: its results/claims.json by id.
      fingerprint: of its tokens, names and splits.
      doses: its runs, as in results/dose.csv; empty where it is no study of doses.
    """

    path: str
    config: dict
    words: str
    kind: str = "other"
    ratio: float = 1.0
    verdicts: dict[str, dict] = field(default_factory=dict)
    fingerprint: str = ""
    doses: pd.DataFrame = field(default_factory=pd.DataFrame)

    def passed_over(self, claim: str, fingerprint: str) -> str:
        """Why the arm's verdict on `claim` is not cited by a study whose data have this `fingerprint`, '' where it
        is."""
        verdict = self.verdicts.get(claim)
        if self.fingerprint != fingerprint:
            return f"its data, {self.fingerprint[:12]}, are not this study's"
        if verdict is None:
            return f"it holds no verdict on {claim}"
        if verdict["exploratory"]:
            return "its verdict is exploratory"
        return f"its verdict is incomplete: {' '.join(verdict['missing'])}" if verdict["missing"] else ""


def load(paths: list[str], config: dict) -> list[Arm]:
    """The arms in the workdirs `paths` of the study with this `config` (nested dicts, as config.json has it).

    Raises:
      InputError: a folder without results, or a study that differs from this one in nothing that an arm may change, or
        in more; of doses also two of the same condition.
    """
    of_doses, arms = bool(config["dose"]["relations"]), []
    for path in paths:
        workdir = Workdir(pathlib.Path(path))
        record, claims, runs = workdir.record(), workdir.results / "claims.json", workdir.results / "dose.csv"
        there = record and (runs.exists() if of_doses else read_json(claims))
        refuse(not there and f"--arms names {path}, which holds no {LACKS[of_doses]} first.")
        theirs = record["config"]
        changed = (_changed_of_doses if of_doses else _changed)(path, config, theirs)
        if of_doses:
            words = condition(theirs)
            twice = words in [other.words for other in arms]
            refuse(twice and f"--arms names two studies of {words}; give each condition once.")
            arms.append(Arm(path, theirs, words, doses=pd.read_csv(runs)))
        else:
            fields = {line.split(":")[0] for line in changed}
            tokens = [c["train"]["steps"] * c["train"]["batch_size"] * c["data"]["seq_len"] for c in (config, theirs)]
            shape = {"grid.num_heads", "grid.d_k", "grid.d_model"} if len(theirs["grid"]["num_heads"]) == 1 else set()
            kinds = {"tokens": {"train.steps"}, "scaling": {"grid.logit_scales"}, "d_k": shape, "other": fields}
            kind = next(kind for kind, may_change in kinds.items() if fields <= may_change)
            verdicts, ratio = {verdict["id"]: verdict for verdict in read_json(claims)}, tokens[1] / tokens[0]
            arms.append(Arm(path, theirs, "; ".join(changed), kind, ratio, verdicts, record["data_fingerprint"]))
    return arms


def _changed(path: str, config: dict, theirs: dict) -> list[str]:
    """What an arm differs in, its condition."""
    for name in RULES:
        own, other = (of["claims"][name] for of in (config, theirs))
        refuse(
            other != own
            and f"--arms names {path}, judged by claims.{name}={other:g} where this study has {own:g}; such verdicts "
            f"do not compare, so run it again in another --workdir with --config.claims.{name}={own:g}."
        )
    changed = [line for line in differences(config, theirs) if not line.startswith(FREE)]
    of_data = [line for line in changed if line.startswith("data.") and not line.startswith("data.seq_len")]
    refuse(
        of_data and f"--arms names {path}, a study of other data: {'; '.join(of_data)}. Name one of the same.",
        not changed and f"--arms names {path}, whose study differs from this one in nothing that an arm may change.",
    )
    return changed


def _changed_of_doses(path: str, config: dict, theirs: dict) -> list[str]:
    changed = [line for line in differences(config, theirs) if not line.startswith(FREE_OF_DOSES)]
    others = [line for line in changed if not line.startswith(CONDITIONS)]
    refuse(
        (others or not changed)
        and f"--arms names {path}, whose study differs from this one in {'; '.join(others) or 'nothing'}; a secondary "
        f"cell differs in {', '.join(CONDITIONS)}, and has all else alike."
    )
    return changed


def condition(config: dict) -> str:
    """What tells a study of doses from its arms, 'switch demand, tagged sources, 2 layers'."""
    count = config["model"]["num_layers"]
    layers = f"{count} layer{'s' if count > 1 else ''}{', the first an MLP alone' * mlp_first(config)}"
    return f"{config['data']['demand']} demand, {config['data']['sources']} sources, {layers}"


def mlp_first(config: dict) -> bool:
    """Whether the first layer's attention is off, so that a study's runs are those of that start."""
    return starts.MLP_FIRST in config["dose"]["starts"]
