"""The config's types, limits and rules; what a command line makes of them is in tests/study/test_bad_input.py."""

import dataclasses
import math

import pytest

from configs import default, induction, kinds, syntax
from train import grid
from train.config import DataConfig, InputError, StudyConfig, freeze
from train.data import sources

SECTIONS = {section.name: section.type for section in dataclasses.fields(StudyConfig)}


def changed(name: str, value):
    values, (section, field) = default.get_config().to_dict(), name.split(".")
    values[section][field] = value
    return getattr(getattr(freeze(values), section), field)


def test_default_has_every_field_and_each_has_the_declared_type():
    values = default.get_config().to_dict()
    declared = {section: {f.name: f.type for f in dataclasses.fields(kind)} for section, kind in SECTIONS.items()}
    assert {section: set(fields) for section, fields in values.items()} == {s: set(f) for s, f in declared.items()}
    for section, fields in declared.items():
        for name, kind in fields.items():
            value, inner = values[section][name], getattr(kind, "__args__", (kind,))[0]
            held = value if isinstance(value, tuple) else (value,)
            assert type(value) is getattr(kind, "__origin__", kind), f"{section}.{name}"
            assert {type(each) for each in held} <= {inner}, f"{section}.{name}"


@pytest.mark.parametrize(("study", "words"), [(induction, 17), (kinds, 121), (syntax, 2_048)])
def test_studies_of_what_heads_learn(study, words):
    """Every cell trains at least five seeds, each at one rate."""
    config = freeze(study.get_config().to_dict())
    assert sources.vocab_size(config.data) == words
    for cell in grid.cells_of(config, words):
        assert len({replica.init_seed for replica in cell.replicas}) == len(cell.replicas) >= 5
        assert cell.model.num_layers >= 2 and cell.model.causal == (study is not syntax)


def test_no_field_has_a_second_default():
    fields = [field for kind in SECTIONS.values() for field in dataclasses.fields(kind)]
    assert {field.default for field in fields} | {field.default_factory for field in fields} == {dataclasses.MISSING}
    with pytest.raises(TypeError, match="missing"):
        DataConfig()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("train.steps", True, "config.train.steps=True must be a whole number, such as --config.train.steps=8."),
        ("train.steps", 1.0, "must be a whole number"),
        ("train.steps", "9", "must be a whole number"),
        ("train.clip_norm", None, "must be a number, such as --config.train.clip_norm=0.01."),
        ("train.clip_norm", math.nan, "must be above 0 and finite"),
        ("train.weight_decay", -math.inf, "must be at least 0 and finite"),
        ("data.source", 1, "must be a string, such as"),
        ("grid.num_heads", 8, "a tuple, each of its values a whole number, such as --config.grid.num_heads=1,8."),
        ("grid.learning_rates", ("a",), "each of its values a number, such as --config.grid.learning_rates=0.01,0.02."),
        ("dose.starts", (1,), "each of its values a string"),
        ("dose.starts", ("by_hand",), "'by_hand' is not one of hand_built, no_attention, mlp_first."),
        ("grid.logit_scales", (), "config.grid.logit_scales is empty"),
        ("data.max_bytes", 2**63, "it may be 9,223,372,036,854,775,807 at most"),
        ("grid.tuning_seeds", (2**32,), "it may be 4,294,967,295 at most"),
        ("train.mask_fraction", 0.6, "hides more than it shows"),
        ("train.keep_checkpoints", (100, 0), r"config.train.keep_checkpoints=\(100, 0\) must be above 0"),
        ("train.keep_checkpoints", (100, 501), "names step 501 and a run ends at train.steps=500"),
        ("train.keep_checkpoints", (100, 200, 100), r"=\(100, 200, 100\) names a step twice"),
        ("grid.flops_per_exp", 2.0, "counts under grid.match=flops alone"),
        ("grid.tuning_seeds", (0, 100), r"the seeds that are judged share \[0\]"),
        ("grid.tuning_seeds", (), "grid.extensions=1 extends the rates"),
    ],
)
def test_refusals(name, value, said):
    with pytest.raises(InputError, match=said):
        changed(name, value)


def test_what_may_be():
    assert changed("train.clip_norm", 1) == 1.0 and type(changed("train.clip_norm", 1)) is float
    assert changed("grid.num_heads", [1, 8]) == (1, 8)
    assert changed("data.max_bytes", 0) == 0 and changed("data.max_bytes", 2**63 - 1) == 2**63 - 1
    assert changed("grid.init_seeds", (0, 2**32 - 1)) == (0, 2**32 - 1)
    assert changed("grid.logit_scales", ("sqrt, inverse",)) == ("sqrt", "inverse")
