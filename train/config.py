"""The study's config, frozen: from an ml_collections ConfigDict to dataclasses, every check that needs no data.

configs/default.py says what each field means and its unit.
"""

import dataclasses
import difflib
import types
import typing


class InputError(ValueError):
    """Bad input: one sentence with the numbers and the remedy; main.py prints it and exits with code 2."""


@dataclasses.dataclass(frozen=True)
class GridConfig:
    d_model: tuple[int, ...]
    num_heads: tuple[int, ...]
    head_ratio: int
    d_k: tuple[int, ...]
    learning_rates: tuple[float, ...]
    init_seeds: tuple[int, ...]
    data_seeds: tuple[int, ...]
    tuning_seeds: tuple[int, ...]
    extensions: int
    seeds: str
    match: str
    flops_per_exp: float
    num_layers: tuple[int, ...]
    logit_scales: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class ShapeConfig:
    num_layers: int
    d_ff: int
    dtype: str
    attention: str
    remat: str
    layers: str


@dataclasses.dataclass(frozen=True)
class DataConfig:
    source: str = "docs"
    tokenizer: str = "bytes"
    seq_len: int = 64
    max_bytes: int = 4_000_000
    tune_fraction: float = 0.05
    test_fraction: float = 0.05
    vocab_size: int = 0
    piece: str = "last"
    relations: str = "6"
    demand: str = "joint"
    sources: str = "exchangeable"
    language_seed: int = 0
    offsets: tuple[int, ...] = (1, 2, 3, 5, 7, 11)
    frame_tokens: int = 12
    most_fillers: int = 3
    document_tokens: int = 64
    distractors: float = 1.0
    noise: float = 0.0


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    objective: str
    mask_fraction: float
    steps: int
    batch_size: int
    schedule: str
    warmup_steps: int
    weight_decay: float
    clip_norm: float
    log_every: int
    checkpoint_every: int
    replica_map: str
    memory_limit_gb: float
    profile_steps: tuple[int, ...]
    accumulate: int


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    stride: int
    batch_size: int


@dataclasses.dataclass(frozen=True)
class ClaimsConfig:
    margin: float
    tolerance: float
    looks: int
    launches: int


@dataclasses.dataclass(frozen=True)
class DoseConfig:
    relations: tuple[int, ...]
    threshold: float
    look_every: int
    documents: int
    starts: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    data: int
    replicas: int


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    grid: GridConfig
    model: ShapeConfig
    data: DataConfig
    train: TrainConfig
    eval: EvalConfig
    claims: ClaimsConfig
    dose: DoseConfig
    mesh: MeshConfig


CHOICES = {
    "grid.seeds": ("paired", "crossed"),
    "grid.match": ("params", "flops", "none"),
    "grid.logit_scales": ("sqrt", "inverse", "learned", "qk_norm"),
    "model.dtype": ("float32", "bfloat16", "float64"),
    "model.remat": ("none", "elementwise", "block"),
    "model.layers": ("auto", "unrolled", "scanned"),
    "data.tokenizer": ("bytes", "bpe"),
    "data.piece": ("first", "last", "all"),
    "data.demand": ("joint", "switch"),
    "data.sources": ("exchangeable", "tagged"),
    "train.objective": ("causal", "masked"),
    "train.schedule": ("cosine", "constant"),
    "train.replica_map": ("auto", "vmap", "scan"),
    "dose.starts": ("hand_built", "no_attention", "mlp_first"),
}
# Fields that workdirs of older versions lack, and what they count as.
LATER = {"dose": {"starts": []}, "model": {"layers": "auto"}}
MAY_BE_EMPTY = ("grid.num_heads", "grid.d_k", "grid.num_layers", "grid.data_seeds", "grid.tuning_seeds")
MAY_BE_EMPTY += ("train.profile_steps", "dose.relations", "dose.starts")
LARGEST = 2**31 - 1  # of a whole number, as XLA counts; except:
LARGEST_SEED = 2**32 - 1
LARGER = {f"grid.{name}_seeds": LARGEST_SEED for name in ("init", "data", "tuning")}
LARGER |= {"data.max_bytes": 2**63 - 1, "data.language_seed": LARGEST_SEED}
LARGEST_FRACTIONAL = 1e30  # with room for what a float32 holds, so that no single step leaves a weight infinite
MAY_BE_ZERO = (
    "grid.init_seeds",
    "grid.data_seeds",
    "grid.tuning_seeds",
    "grid.extensions",
    "grid.flops_per_exp",
    "claims.launches",
    "model.d_ff",
    "data.max_bytes",
    "data.vocab_size",
    "data.language_seed",
    "data.most_fillers",
    "data.distractors",
    "data.noise",
    "train.warmup_steps",
    "train.weight_decay",
    "train.memory_limit_gb",
    "train.profile_steps",
    "eval.stride",
    "mesh.replicas",
)


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """', did you mean ...?' for the names closest to `word`, or the list of all that are known."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}."


def freeze(values: typing.Mapping) -> StudyConfig:
    """`values`, nested by section, as a checked StudyConfig.

    Raises:
      InputError: an unknown or missing section or field, a value of the wrong type or out of range.
    """
    _same_names("config", values, [field.name for field in dataclasses.fields(StudyConfig)])
    sections = {}
    for section in dataclasses.fields(StudyConfig):
        fields = {field.name: field.type for field in dataclasses.fields(section.type)}
        _same_names(f"config.{section.name}", values[section.name], fields)
        typed = {
            name: _typed(f"{section.name}.{name}", kind, values[section.name][name]) for name, kind in fields.items()
        }
        sections[section.name] = section.type(**typed)
    config = StudyConfig(**sections)
    _check_values(config)
    return config


def check_field(name: str) -> None:
    """Raises InputError unless `name`, such as 'grid.num_heads', is a field of the config."""
    known = _fields()
    if name in {field.partition(".")[0] for field in known}:
        raise InputError(f"--config.{name} is a section; set one of its fields, such as --config.{_first(name)}=...")
    if name not in known:
        raise InputError(f"--config.{name} is no field of the config; {nearest(name, known)}")


def wrong_type(name: str, text: str) -> str:
    """The sentence for `text`, from the command line, that cannot be a value of the field `name`."""
    kind = _fields()[name]
    return f"--config.{name}={text} must be {_kind_in_words(kind)}, such as --config.{name}={_example(kind)}."


def _fields() -> dict[str, type]:
    """'section.field' -> its type."""
    sections = {section.name: section.type for section in dataclasses.fields(StudyConfig)}
    return {f"{name}.{field.name}": field.type for name, kind in sections.items() for field in dataclasses.fields(kind)}


def _first(section: str) -> str:
    return next(name for name in _fields() if name.startswith(f"{section}."))


def _kind_in_words(kind) -> str:
    words = {int: "a whole number", float: "a number", str: "a string"}
    return words.get(kind) or f"a tuple, each of its values {words[kind.__args__[0]]}"


def _example(kind) -> str:
    examples = {int: "8", float: "0.01", str: "auto"}
    return examples.get(kind) or {int: "1,8", float: "0.01,0.02"}[kind.__args__[0]]


def _same_names(where: str, given: typing.Mapping, known: typing.Iterable[str]) -> None:
    known = list(known)
    for name in given:
        if name not in known:
            raise InputError(f"{where} has no field {name!r}; {nearest(name, known)}")
    missing = [name for name in known if name not in given]
    if missing:
        raise InputError(f"{where} lacks {', '.join(missing)}; start from configs/default.py, which names every field.")


def _typed(name: str, kind, value):
    if isinstance(kind, types.GenericAlias):
        inner = kind.__args__[0]
        if isinstance(value, tuple | list) and all(_is(inner, item) for item in value):
            if inner is str:  # a command line gives several words as one
                value = [word.strip() for item in value for word in item.split(",") if word.strip()]
            return tuple(inner(item) for item in value)
    elif _is(kind, value):
        return kind(value)
    raise InputError(
        f"config.{name}={value!r} must be {_kind_in_words(kind)}, such as --config.{name}={_example(kind)}."
    )


def _is(kind: type, value) -> bool:
    return isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)


def _check_values(config: StudyConfig) -> None:
    for section in dataclasses.fields(config):
        for field in dataclasses.fields(section.type):
            name = f"{section.name}.{field.name}"
            _check_value(name, getattr(getattr(config, section.name), field.name))
    for name, values in dataclasses.asdict(config.grid).items():
        if isinstance(values, tuple) and len(set(values)) < len(values):
            raise InputError(f"config.grid.{name}={values} names a value twice; name each once.")
    grid, train, data = config.grid, config.train, config.data
    if grid.head_ratio < 2:
        raise InputError(f"grid.head_ratio={grid.head_ratio} must be at least 2, the ratio of successive num_heads.")
    if grid.seeds == "paired" and grid.data_seeds not in ((), grid.init_seeds):
        raise InputError(
            f"grid.seeds=paired gives seed i to init and data order together, but grid.data_seeds={grid.data_seeds} "
            f"differs from grid.init_seeds={grid.init_seeds}; leave data_seeds empty, or set grid.seeds=crossed."
        )
    if grid.seeds == "crossed" and not grid.data_seeds:
        raise InputError("grid.seeds=crossed needs grid.data_seeds, such as --config.grid.data_seeds=0,1.")
    if grid.flops_per_exp and grid.match != "flops":
        raise InputError(
            f"grid.flops_per_exp={grid.flops_per_exp:g} counts under grid.match=flops alone, and grid.match="
            f"{grid.match}; set the one or drop the other."
        )
    judged = {*grid.init_seeds, *grid.data_seeds} & {*grid.tuning_seeds}
    if judged:
        raise InputError(
            f"grid.tuning_seeds={grid.tuning_seeds} and the seeds that are judged share {sorted(judged)}; a choice "
            f"made on a seed flatters its result, so give grid.tuning_seeds other numbers."
        )
    if grid.extensions and not grid.tuning_seeds:
        raise InputError(
            f"grid.extensions={grid.extensions} extends the rates of the tuning stage, and grid.tuning_seeds is empty; "
            f"give tuning seeds, such as --config.grid.tuning_seeds=100,101, or set grid.extensions=0."
        )
    if data.tune_fraction + data.test_fraction >= 1:
        raise InputError(
            f"data.tune_fraction={data.tune_fraction} and data.test_fraction={data.test_fraction} leave nothing to "
            f"train on; their sum must be below 1."
        )
    if train.mask_fraction > 0.5:
        raise InputError(
            f"train.mask_fraction={train.mask_fraction} hides more than it shows; give a number from above 0 to .5."
        )
    if train.objective == "masked" and data.seq_len < 2:
        raise InputError("train.objective=masked with data.seq_len=1 shows a model nothing; give at least 2.")
    if train.warmup_steps >= train.steps:
        raise InputError(f"train.warmup_steps={train.warmup_steps} must be below train.steps={train.steps}.")
    if train.profile_steps and not (len(train.profile_steps) == 2 and max(train.profile_steps) < train.steps):
        raise InputError(
            f"train.profile_steps={train.profile_steps} must be the first and the last step to trace, both below "
            f"train.steps={train.steps}, such as --config.train.profile_steps=10,15."
        )
    if config.dose.relations:
        _check_dose(config)
    if config.eval.stride > data.seq_len:
        raise InputError(
            f"eval.stride={config.eval.stride} exceeds data.seq_len={data.seq_len}, so tokens would go uncounted; "
            f"choose 1 to {data.seq_len}, or 0 for seq_len."
        )
    if train.batch_size % config.mesh.data:
        raise InputError(
            f"train.batch_size={train.batch_size} does not divide over mesh.data={config.mesh.data} devices; make it a "
            f"multiple of {config.mesh.data}."
        )
    if config.mesh.data > 1 and config.mesh.replicas > 1:
        raise InputError(
            f"mesh.data={config.mesh.data} and mesh.replicas={config.mesh.replicas} both share out a program; set one "
            f"of them to 1."
        )
    if train.batch_size % (train.accumulate * config.mesh.data):
        raise InputError(
            f"train.batch_size={train.batch_size} does not divide into train.accumulate={train.accumulate} parts over "
            f"mesh.data={config.mesh.data} devices; make it a multiple of {train.accumulate * config.mesh.data}."
        )


def _check_dose(config: StudyConfig) -> None:
    """What a study of T against the dose (claim C4) must be."""
    dose, data, train, grid = config.dose, config.data, config.train, config.grid
    wanted = {
        "data.source=relations": data.source == "relations",
        "train.objective=causal": train.objective == "causal",
        "grid.seeds=paired": grid.seeds == "paired",
        "mesh.data=1": config.mesh.data == 1,
        f"data.seq_len={data.document_tokens}, a document": data.seq_len == data.document_tokens,
        "grid.tuning_seeds, or a single rate": bool(grid.tuning_seeds) or len(grid.learning_rates) == 1,
        f"train.steps, the cap, a multiple of dose.look_every={dose.look_every}": train.steps % dose.look_every == 0,
        "a single d_model": len(grid.d_model) == 1,
        "grid.num_layers=()": not grid.num_layers,
        "grid.logit_scales=('sqrt',)": grid.logit_scales == ("sqrt",),
    }
    lacking = [what for what, holds in wanted.items() if not holds]
    if lacking:
        raise InputError(
            f"dose.relations={dose.relations} asks how many steps each dose needs; that takes {', '.join(lacking)}. "
            f"configs/relations.py sets them all; dose.relations=() is a study of losses."
        )
    if len(set(dose.relations)) < len(dose.relations):
        raise InputError(f"config.dose.relations={dose.relations} names a dose twice; name each once.")
    if len(set(dose.starts)) < len(dose.starts):
        raise InputError(f"config.dose.starts={dose.starts} names a start twice; name each once.")


def _check_value(name: str, value) -> None:
    for each in value if isinstance(value, tuple) else (value,):
        if name in CHOICES and each not in CHOICES[name]:
            why = " (its softmax would overflow at logits of 65504; use bfloat16)" if each == "float16" else ""
            raise InputError(f"config.{name}={each!r} is not one of {', '.join(CHOICES[name])}{why}.")
    if value == () and name not in MAY_BE_EMPTY:
        example = _example(_fields()[name])
        raise InputError(f"config.{name} is empty; give at least one value, such as --config.{name}={example}.")
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, int | float):
            low_enough = number >= 0 if name in MAY_BE_ZERO else number > 0
            if not low_enough or number != number or number == float("inf"):
                least = "at least 0" if name in MAY_BE_ZERO else "above 0"
                raise InputError(f"config.{name}={value!r} must be {least} and finite.")
            most = LARGER.get(name, LARGEST) if isinstance(number, int) else LARGEST_FRACTIONAL
            if number > most:
                most = f"{most:,}" if isinstance(number, int) else f"{most:g}"
                raise InputError(f"config.{name}={value!r} is too large; it may be {most} at most.")


def differences(old: dict, new: dict) -> list[str]:
    """'section.field: old -> new' for every field that differs between two configs as nested dicts."""
    found = []
    for section in sorted({*old, *new}):
        ours, theirs = old.get(section, {}), new.get(section, {})
        for field in sorted({*ours, *theirs}):
            if ours.get(field) != theirs.get(field):
                found.append(f"{section}.{field}: {ours.get(field)} -> {theirs.get(field)}")
    return found
