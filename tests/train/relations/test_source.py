"""Documents one at a time: as a source for Grain, and prepared by TFDS."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from train.config import DataConfig
from train.relations import language, parse
from train.relations.source import Source

PREPARE = """
import json, sys
import numpy as np
from train.config import DataConfig
from train.relations_tfds.relations_tfds import Relations, config_of
data = DataConfig(relations="4,A,E", noise=.1, language_seed=3)
config = config_of(data, {{"train": 1100, "test": 30}})
builder = Relations(config=config, file_format="array_record", data_dir={folder!r})
builder.download_and_prepare()
read = builder.as_data_source()
from train.relations import parse
from train.relations.source import Source
source = Source(parse.language(data), 3, 1130)
same = []
for split, first in (("train", 0), ("test", 1100)):
    for index in (0, 7, len(read[split]) - 1):
        rows = [row for row in read[split] if np.array_equal(row["tokens"], source[first + index]["tokens"])]
        element = rows[0] | {{name: rows[0][name].view(np.float64) for name in ("log_p", "question_log_p")}}
        same.append(len(rows) == 1 and all(np.array_equal(element[k], v) for k, v in source[first + index].items()))
name = builder.builder_config.name
print(json.dumps([same, len(read["train"]), len(read["test"]), name, "tensorflow" in sys.modules]))
"""


@pytest.mark.parametrize("which", ["6", "A,E,F,G", "3,C"])
def test_an_element_is_the_document(which):
    spoken = parse.language(DataConfig(relations=which, noise=0.1))
    source, found = Source(spoken, 5, 400, first=1000), language.documents(spoken, 5, 1000, 1400)
    assert len(source) == 400
    for index in (0, 23, 24, 399):
        element = source[index]
        np.testing.assert_array_equal(element["tokens"], found.tokens[index])
        np.testing.assert_array_equal(element["log_p"], found.log_p[index])
        links, asked = (table.document == index for table in (found.links, found.questions))
        np.testing.assert_array_equal(element["links"], np.stack([column[links] for column in found.links[1:]], axis=1))
        wanted = np.stack([column[asked] for column in found.questions[1:4]], axis=1)
        np.testing.assert_array_equal(element["questions"], wanted)
        np.testing.assert_array_equal(element["question_log_p"], found.questions.log_p[asked])
        assert len(element["links"]) >= len(element["questions"])
    with pytest.raises(IndexError, match="document 400 of a source of 400"):
        source[400]


def test_grain_takes_it():
    import grain

    source = Source(parse.language(DataConfig(relations="6")), 5, 100)
    shuffled = grain.MapDataset.source(source).shuffle(seed=1)
    seen = {bytes(shuffled[index]["tokens"]) for index in range(100)}
    assert seen == {bytes(source[index]["tokens"]) for index in range(100)}


@pytest.mark.slow
def test_tfds_prepares_it_without_tensorflow(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    code = PREPARE.format(folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    same, train, test, name, tensorflow = json.loads(done.stdout.splitlines()[-1])
    assert same == [True] * 6 and (train, test) == (1100, 30) and not tensorflow
    assert name.endswith("_train1100_test30") and list(tmp_path.glob("relations/*/1.0.0/*array_record*"))
