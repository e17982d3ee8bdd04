"""Bad input about relations: a sentence with the numbers and the remedy."""

import pytest

from tests.data import data_config
from train.config import InputError
from train.data.relations import parse
from train.data.relations.dose import Dose
from train.data.relations.kinds import Kinds


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"relations": "A,Z"}, "names 'Z', which is no relation; known: A (agreement), B (position)"),
        ({"relations": "agreement"}, "names 'agreement'"),
        ({"relations": "-1"}, "names '-1'"),
        ({"relations": ""}, "switches no relation on"),
        ({"relations": " , "}, "switches no relation on"),
        ({"relations": "0"}, "such as --config.data.relations=6"),
        ({"relations": "7"}, "asks for 7 relations and an answer has 6 bits"),
        ({"relations": "3", "offsets": (1, 2)}, "give at most 2, or more offsets"),
        ({"relations": "A,C,A"}, "names A; give each relation once"),
        ({"relations": "2,4"}, "names two doses"),
        ({"offsets": (1, 2, 2, 5, 7, 11)}, "uses 2 twice"),
        ({"offsets": tuple(range(1, 12))}, "answers of 11 bits"),
        ({"frame_tokens": 10}, "too short for the source at offset 11, 11 tokens before the query; give at least 11"),
        ({"relations": "B", "frame_tokens": 7}, "too short for the carrier of relation B, 8 tokens"),
        ({"document_tokens": 17}, "data.document_tokens=17 is too short"),
        ({"document_tokens": 17}, "give at least 18"),
        ({"relations": "A", "document_tokens": 18}, "give at least 19"),
        ({"vocab_size": 161}, "data.vocab_size=161 is too small: the language of data.relations=6 has 162 words"),
        ({"relations": "6,A", "vocab_size": 162}, "has 282 words"),
        ({"noise": 0.5}, "data.noise=0.5 must be at least 0 and below .5"),
        ({"noise": -0.1}, "data.noise=-0.1"),
        ({"distractors": 1.5}, "data.distractors=1.5 is a probability"),
        ({"vocab_size": 70_000}, "70,000 words and 65,536 is the most"),
    ],
)
def test_refused(fields, said):
    with pytest.raises(InputError) as error:
        parse.language(data_config(source="relations", **fields))
    assert said in str(error.value) and str(error.value).endswith((".", "?"))


def test_the_least_that_is_accepted():
    assert parse.language(data_config(frame_tokens=11, document_tokens=17)).sample
    assert parse.language(data_config(relations="B", frame_tokens=8, document_tokens=15)).sample
    assert len(parse.language(data_config(vocab_size=162)).vocabulary) == 162


def test_fields_become_dials():
    found = parse.language(data_config(relations="2", demand="switch", sources="tagged", language_seed=7, noise=0.1))
    assert found == Dose((1, 2), demand="switch", tagged=True, noise=0.1)
    assert parse.language(data_config(relations="G, A")) == Kinds(("A", "G"))
    both = parse.language(data_config(relations="4,C"))
    assert both.dose == Dose((0, 1, 5, 2)) and both.kinds == Kinds(("C",))
