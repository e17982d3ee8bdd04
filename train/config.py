"""The study's config, frozen, with every check that needs no data: configs/default.py gives each field its value and
says what it means and its unit; here are its type and its limits."""

import dataclasses
import difflib
import types
from collections.abc import Iterable, Mapping

from train import config_rules

LARGEST = 2**31 - 1  # of a whole number, as XLA counts, unless its field says otherwise
LARGEST_SEED = 2**32 - 1
LARGEST_FRACTIONAL = 1e30  # with room for what a float32 holds, so that no single step leaves a weight infinite
EXAMPLES = {int: "8", float: "0.01", str: "auto", tuple[int, ...]: "1,8", tuple[float, ...]: "0.01,0.02"}
EXAMPLES[tuple[str, ...]] = "sqrt,inverse"


class InputError(ValueError):
    """Bad input: one sentence with the numbers and the remedy; main.py prints it and exits with code 2."""


def limits(zero: bool = False, most: int = LARGEST, choices: tuple[str, ...] = (), empty: bool = False):
    """A field, without a default, that is not merely a number above 0 or any string; of a tuple, its values are not.

    Args:
      zero: it may be 0.
      most: the largest whole number that it may be.
      choices: the words that it may be.
      empty: it may be (), which another tuple may not.
    """
    return dataclasses.field(metadata={"zero": zero, "most": most, "choices": choices, "empty": empty})


@dataclasses.dataclass(frozen=True)
class GridConfig:
    d_model: tuple[int, ...]
    num_heads: tuple[int, ...] = limits(empty=True)
    head_ratio: int
    d_k: tuple[int, ...] = limits(empty=True)
    learning_rates: tuple[float, ...]
    init_seeds: tuple[int, ...] = limits(zero=True, most=LARGEST_SEED)
    data_seeds: tuple[int, ...] = limits(zero=True, most=LARGEST_SEED, empty=True)
    tuning_seeds: tuple[int, ...] = limits(zero=True, most=LARGEST_SEED, empty=True)
    extensions: int = limits(zero=True)
    seeds: str = limits(choices=("paired", "crossed"))
    repeats: int = limits(zero=True)
    match: str = limits(choices=("params", "flops", "none"))
    flops_per_exp: float = limits(zero=True)
    num_layers: tuple[int, ...] = limits(empty=True)
    logit_scales: tuple[str, ...] = limits(choices=("sqrt", "inverse", "learned", "qk_norm"))


@dataclasses.dataclass(frozen=True)
class ShapeConfig:
    num_layers: int
    d_ff: int = limits(zero=True)
    dtype: str = limits(choices=("float32", "bfloat16", "float64"))
    attention: str
    remat: str = limits(choices=("none", "elementwise", "block"))
    layers: str = limits(choices=("auto", "unrolled", "scanned"))


@dataclasses.dataclass(frozen=True)
class DataConfig:
    source: str
    labelled: str
    tokenizer: str = limits(choices=("bytes", "bpe"))
    seq_len: int
    max_bytes: int = limits(zero=True, most=2**63 - 1)
    tune_fraction: float
    test_fraction: float
    split_seed: int = limits(zero=True, most=LARGEST_SEED)
    vocab_size: int = limits(zero=True)
    piece: str = limits(choices=("first", "last", "all"))
    relations: str
    demand: str = limits(choices=("joint", "switch"))
    sources: str = limits(choices=("exchangeable", "tagged"))
    language_seed: int = limits(zero=True, most=LARGEST_SEED)
    offsets: tuple[int, ...]
    frame_tokens: int
    most_fillers: int = limits(zero=True)
    document_tokens: int
    distractors: float = limits(zero=True)
    noise: float = limits(zero=True)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    objective: str = limits(choices=("causal", "masked"))
    mask_fraction: float
    steps: int
    batch_size: int
    schedule: str = limits(choices=("cosine", "constant"))
    warmup_steps: int = limits(zero=True)
    weight_decay: float = limits(zero=True)
    clip_norm: float
    log_every: int
    checkpoint_every: int
    keep_checkpoints: tuple[int, ...] = limits(empty=True)
    replica_map: str = limits(choices=("auto", "vmap", "scan"))
    memory_limit_gb: float = limits(zero=True)
    profile_steps: tuple[int, ...] = limits(zero=True, empty=True)
    windows: str = limits(choices=("all", "halves"))
    accumulate: int


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    stride: int = limits(zero=True)
    batch_size: int


@dataclasses.dataclass(frozen=True)
class ClaimsConfig:
    margin: float
    tolerance: float
    looks: int
    cell: str
    launches: int = limits(zero=True)
    content: float
    position: float


@dataclasses.dataclass(frozen=True)
class HeadsConfig:
    texts: int = limits(zero=True)
    untrained: int


@dataclasses.dataclass(frozen=True)
class DoseConfig:
    relations: tuple[int, ...] = limits(empty=True)
    threshold: float
    look_every: int
    documents: int
    starts: tuple[str, ...] = limits(choices=("hand_built", "no_attention", "mlp_first"), empty=True)


@dataclasses.dataclass(frozen=True)
class AblationConfig:
    kinds: tuple[str, ...] = limits(choices=("zero", "mean", "resample", "optimal"), empty=True)
    windows: int
    per_document: int = limits(zero=True)
    optimal_steps: int


ORDERS = ("random", "random_within_layers", "magnitude", "gradient", "gradient_normalised", "one_shot", "greedy", "l0")


@dataclasses.dataclass(frozen=True)
class PruningConfig:
    orders: tuple[str, ...] = limits(choices=ORDERS, empty=True)
    tuning_orders: tuple[str, ...] = limits(choices=ORDERS, empty=True)
    rounds: int
    windows: int
    per_document: int = limits(zero=True)
    draws: int
    recovery_steps: int = limits(zero=True)
    recovery_rate: float
    shares: tuple[float, ...]
    strengths: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    data: int
    replicas: int = limits(zero=True)


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    grid: GridConfig
    model: ShapeConfig
    data: DataConfig
    train: TrainConfig
    eval: EvalConfig
    claims: ClaimsConfig
    heads: HeadsConfig
    dose: DoseConfig
    ablation: AblationConfig
    pruning: PruningConfig
    mesh: MeshConfig


def refuse(*sentences) -> None:
    """Raises InputError with the first of `sentences`, each of the form `what is wrong and f"the sentence for it"`."""
    for sentence in filter(None, sentences):
        raise InputError(sentence)


def in_a_line(error: BaseException) -> str:
    """What `error` says, without its full stop; where it says nothing, its type."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def nearest(word: str, known: Iterable[str]) -> str:
    """', did you mean ...?' for the names closest to `word`, or the list of all that are known."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}."


def freeze(values: Mapping) -> StudyConfig:
    """`values`, nested by section, as a checked StudyConfig.

    Raises:
      InputError: an unknown or missing section or field, a value of the wrong type or out of range.
    """
    _same_names("config", values, [section.name for section in dataclasses.fields(StudyConfig)])
    sections = {}
    for section in dataclasses.fields(StudyConfig):
        own, fields = values[section.name], dataclasses.fields(section.type)
        _same_names(f"config.{section.name}", own, [field.name for field in fields])
        typed = {field.name: _typed(f"{section.name}.{field.name}", field.type, own[field.name]) for field in fields}
        sections[section.name] = section.type(**typed)
    config = StudyConfig(**sections)
    for name, field in _fields().items():
        _check_limits(name, field, getattr(sections[name.partition(".")[0]], field.name))
    refuse(*config_rules.broken(config))
    return config


def check_field(name: str) -> None:
    """Raises InputError unless `name`, such as 'grid.num_heads', is a field of the config."""
    known = _fields()
    first = next((field for field in known if field.startswith(f"{name}.")), None)
    refuse(
        first and f"--config.{name} is a section; set one of its fields, such as --config.{first}=...",
        name not in known and f"--config.{name} is no field of the config; {nearest(name, known)}",
    )


def wrong_type(name: str, text: str) -> str:
    """The sentence for `text`, from the command line, that cannot be a value of the field `name`."""
    return f"--config.{name}={text} must be {_must_be(name)}"


def _fields() -> dict[str, dataclasses.Field]:
    """'section.field' -> the field."""
    sections = dataclasses.fields(StudyConfig)
    return {f"{one.name}.{field.name}": field for one in sections for field in dataclasses.fields(one.type)}


def _must_be(name: str) -> str:
    """The type of the field `name` in words, with an example."""
    kind, words = _fields()[name].type, {int: "a whole number", float: "a number", str: "a string"}
    what = words.get(kind) or f"a tuple, each of its values {words[kind.__args__[0]]}"
    return f"{what}, such as --config.{name}={EXAMPLES[kind]}."


def _same_names(where: str, given: Mapping, known: list[str]) -> None:
    missing = [name for name in known if name not in given]
    refuse(*(f"{where} has no field {name!r}; {nearest(name, known)}" for name in given if name not in known))
    refuse(missing and f"{where} lacks {', '.join(missing)}; start from configs/default.py, which names every field.")


def _typed(name: str, kind, value):
    if isinstance(kind, types.GenericAlias):
        inner = kind.__args__[0]
        if isinstance(value, tuple | list) and all(_is(inner, item) for item in value):
            if inner is str:  # a command line gives several words as one
                value = [word.strip() for item in value for word in item.split(",") if word.strip()]
            return tuple(inner(item) for item in value)
    elif _is(kind, value):
        return kind(value)
    raise InputError(f"config.{name}={value!r} must be {_must_be(name)}")


def _is(kind: type, value) -> bool:
    return isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)


def _check_limits(name: str, field: dataclasses.Field, value) -> None:
    zero, most, choices, empty = (field.metadata or limits().metadata).values()
    example = f"--config.{name}={EXAMPLES[field.type]}"
    refuse(value == () and not empty and f"config.{name} is empty; give at least one value, such as {example}.")
    for each in value if isinstance(value, tuple) else (value,):
        if isinstance(each, str):
            why = " (its softmax would overflow at logits of 65504; use bfloat16)" * (each == "float16")
            refuse(
                choices and each not in choices and f"config.{name}={each!r} is not one of {', '.join(choices)}{why}."
            )
            continue
        largest, form = (most, ",") if isinstance(each, int) else (LARGEST_FRACTIONAL, "g")
        refuse(
            (not (0 <= each if zero else 0 < each) or each == float("inf"))  # nor nan
            and f"config.{name}={value!r} must be {'at least 0' if zero else 'above 0'} and finite.",
            each > largest and f"config.{name}={value!r} is too large; it may be {largest:{form}} at most.",
        )


def differences(old: dict, new: dict) -> list[str]:
    """'section.field: old -> new' for every field that differs between two configs as nested dicts."""
    pairs = [(section, old.get(section, {}), new.get(section, {})) for section in sorted({*old, *new})]
    return [
        f"{section}.{field}: {ours.get(field)} -> {theirs.get(field)}"
        for section, ours, theirs in pairs
        for field in sorted({*ours, *theirs})
        if ours.get(field) != theirs.get(field)
    ]
