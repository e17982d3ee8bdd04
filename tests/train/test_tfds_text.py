"""tensorflow-datasets runs in processes of its own: it fixes its data folder when it is imported."""

import json
import os
import subprocess
import sys
import textwrap
import time

import pytest

BUILDER = """
import numpy as np
import tensorflow_datasets as tfds


class TinyStories(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"story": tfds.features.Text(), "number": tfds.features.Scalar(np.int64)}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(range(60)), "validation": self._generate_examples(range(60, 80))}

    def _generate_examples(self, numbers):
        for number in numbers:
            yield number, {"story": f"Story {number}: " + "na\\u00efve words " * 9, "number": number}
"""
READ = """
import json, sys
from train.data import corpora
from tests.data import data_config
from train.config import InputError
try:
    corpus = corpora.write_corpus(data_config(source={source!r}, seq_len=16, max_bytes={max_bytes}), {folder!r})
    result = [corpus.unit, list(corpus.names), int(corpus.num_bytes.sum()), corpus.fingerprint]
except InputError as error:
    result = str(error)
print(json.dumps([result, "tensorflow" in sys.modules]))
"""


def python(code: str, path: str, data_dir) -> str:
    environment = os.environ | {"PYTHONPATH": f"{path}{os.pathsep}{os.getcwd()}", "TFDS_DATA_DIR": str(data_dir)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def read(source: str, data_dir, folder, max_bytes: int = 0, before: str = ""):
    code = before + READ.format(source=source, folder=str(folder), max_bytes=max_bytes)
    result, imported = json.loads(python(code, str(data_dir.parent), data_dir))
    assert not imported
    return result


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data folder that holds tiny_stories as array_record, prepared through the `tfds:` source itself."""
    root = tmp_path_factory.mktemp("tfds")
    package = root / "tiny_stories"  # of its own: TFDS walks the builder's folder
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "tiny_stories.py").write_text(BUILDER)
    first = read(
        "tfds:tiny_stories", root / "prepared", root / "data", before="from tiny_stories import tiny_stories\n"
    )
    return root / "prepared", first


def test_a_builder_is_prepared_and_read(prepared):
    _, (unit, names, num_bytes, _) = prepared
    assert unit == "document" and len(names) == 80
    assert {"train/0", "train/59", "validation/0", "validation/19"} <= set(names)
    assert num_bytes == sum(len(f"Story {number}: " + "na\u00efve words " * 9) + 9 for number in range(80))


def test_prepared_files_are_read_without_their_builder(prepared, tmp_path):
    data_dir, first = prepared
    assert read("tfds:tiny_stories", data_dir, tmp_path) == first
    some = read("tfds:tiny_stories", data_dir, tmp_path, max_bytes=7_000)
    assert 6_000 < some[2] <= 7_000 and set(some[1]) < set(first[1])


def test_another_format_says_how_to_prepare(prepared, tmp_path):
    info = next(prepared[0].rglob("dataset_info.json"))
    folder = tmp_path / "other" / "tiny_stories" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / info.name).write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    (folder / "features.json").write_text((info.parent / "features.json").read_text())
    message = read("tfds:tiny_stories", tmp_path / "other", tmp_path / "data")
    assert "not as array_record" in message
    assert "tfds build tiny_stories --file_format=array_record --data_dir=DIR" in message


@pytest.mark.parametrize(
    "source, said",
    [
        ("tfds:lm1bb", "knows no data set 'lm1bb' (nearest: lm1b)"),
        ("tfds:wiki40b/en", "needs TensorFlow; prepare it once"),
        ("tfds:mnist", "has no feature `text` and 0 features of type Text"),
        ("tfds:lm1b:9.9.9", "cannot be opened"),
        ("tfds:", "cannot be opened"),
    ],
)
def test_names_that_cannot_be_used(source, said, tmp_path):
    message = read(source, tmp_path / "empty", tmp_path / "data")
    assert said in message and ("file:" in message or "TFDS_DATA_DIR" in message)


def test_no_network_is_found_in_seconds(tmp_path):
    """Neither a name that is not found nor a server that never answers may take the downloader's 3.5 minutes."""
    for unreachable in (
        "def request(*args, **kwargs): raise requests.ConnectionError('Name or service not known')",
        "def request(*args, **kwargs): time.sleep(600)",
    ):
        before = textwrap.dedent(f"""
            import time, requests
            {unreachable}
            requests.head = request
        """)
        began = time.monotonic()
        message = read("tfds:lm1b", tmp_path / "empty", tmp_path / "data", before=before)
        assert time.monotonic() - began < 12  # ten, and a process's start
        assert "cannot be downloaded: no answer from www.statmt.org" in message
        assert "--config.data.source=file:" in message


TREES = """
# newdoc id = weblog-one
# sent_id = weblog-one-0001
# text = I don't, ou du café.
1\tI\tI\tPRON\tPRP\tCase=Nom\t3\tnsubj\t3:nsubj\tEntity=(e1-person-1)
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No
2\tdo\tdo\tAUX\tVBP\t_\t3\taux\t3:aux\t_
3\tn't\tnot\tPART\tRB\t_\t0\troot\t0:root\t_
3.1\tgo\tgo\tVERB\tVB\t_\t_\t_\t0:root\t_
4\t,\t,\tPUNCT\t,\t_\t3\tpunct\t3:punct\t_
5\tou\tor\tCCONJ\tCC\t_\t8\tcc\t8:cc\t_
6-7\tdu\t_\t_\t_\t_\t_\t_\t_\t_
6\tde\tde\tADP\tIN\t_\t8\tcase\t8:case\t_
7\tle\tle\tDET\tDT\t_\t8\tdet\t8:det\t_
8\tcafé\tcafé\tNOUN\tNN\t_\t3\tconj\t3:conj\tSpaceAfter=No|Entity=(e2-place-1)
9\t.\t.\tPUNCT\t.\t_\t3\tpunct\t3:punct\t_

# sent_id = weblog-one-0002
# text = I sleep
1\tI\tI\tPRON\tPRP\t_\t2\tnsubj\t2:nsubj\tEntity=(e1-person-1)
2\tsleep\tsleep\tVERB\tVBP\t_\t0\troot\t0:root\t_

# newdoc id = weblog-two
# sent_id = weblog-two-0001
# text = None slept
1\tNobody\tnobody\tPRON\tNN\t_\t2\tnsubj\t2:nsubj\t_
2\tslept\tsleep\tVERB\tVBD\t_\t0\troot\t0:root\t_

"""
PREPARE_TREES = """
import tensorflow_datasets as tfds
builder = tfds.builder("universal_dependencies/en_ewt", file_format="array_record")
builder._split_generators = lambda manager: {{"dev": builder._generate_examples([{path!r}])}}
builder.download_and_prepare()
"""
COMPARE_TREES = """
import dataclasses, json, sys
from train.data import conllu_text
from train.config import InputError
ours, unit, report = conllu_text.read("tfds:universal_dependencies/en_ewt")
files, _, wanted = conllu_text.read({source!r})
def key(found):
    names = [one.name.partition("#")[2] for one in found]
    return {{name: (one.text, one.spans.tolist(), sorted(one.links)) for name, one in zip(names, found)}}
assert dataclasses.asdict(report) == dataclasses.asdict(wanted), (report, wanted)
assert key(ours) == key(files) and len(ours) == len(files), (key(ours), key(files))
result = [unit, len(ours), report.sentences, report.words, sum(len(one.links) for one in ours)]
print(json.dumps([result, "tensorflow" in sys.modules]))
"""


def trees(path, folder) -> list:
    """What is read of a data set that is prepared from the CoNLL-U at `path`, the same as what is read of the file."""
    prepared = folder / "prepared"
    python(PREPARE_TREES.format(path=str(path)) + "print()", str(folder), prepared)
    result, imported = json.loads(python(COMPARE_TREES.format(source=f"conllu:{path}"), str(folder), prepared))
    assert not imported
    return result


def test_gold_trees_are_read_as_from_their_file(tmp_path):
    """Contractions, empty nodes, entities and the order of sentences come back, though the data set has no numbers."""
    (tmp_path / "gold.conllu").write_text(TREES.lstrip("\n"))
    assert trees(tmp_path / "gold.conllu", tmp_path) == ["block", 2, 3, 13, 8 + 1 + 1 + 1]


def test_gold_trees_that_are_not_prepared_say_how(tmp_path):
    before = "import requests\ndef head(*a, **k): raise requests.ConnectionError('no name')\nrequests.head = head\n"
    message = read("tfds:universal_dependencies/en_ewt", tmp_path / "empty", tmp_path / "data", before=before)
    assert "is not prepared in" in message and "no answer from raw.githubusercontent.com" in message
    assert "tfds build universal_dependencies/en_ewt --file_format=array_record --data_dir=DIR" in message
