"""Bad input: exit code 2, one sentence with the numbers and the remedy, no traceback, before any training."""

import json
import shutil
import subprocess
import sys
import time

import pytest

import main
from tests.study.tiny import HERE
from train.hosts import slots

SECONDS = 10


def refused(capsys, *arguments: str) -> str:
    """The sentence with which a command line is refused."""
    began = time.monotonic()
    assert main.main(list(arguments)) == 2
    assert time.monotonic() - began < SECONDS
    captured = capsys.readouterr()
    assert captured.err.startswith("Error: ") and captured.err.count("\n") == 1 and "Traceback" not in captured.err
    assert captured.err.rstrip().endswith((".", "?"))
    return captured.err


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    def trained(*_, **__):
        raise AssertionError("bad input must not come this far")

    monkeypatch.setattr("train.study.launch.train_cells", trained)
    monkeypatch.setattr("train.study.launch.train_packs", trained)
    monkeypatch.setattr("train.study.launch.Program", trained)


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        # Unknown names, with the nearest ones.
        ("--confg=configs/smoke.py", "did you mean config?"),
        ("--wordkir=x", "did you mean workdir or workers?"),
        ("--config.grid.num_head=3", "did you mean grid.num_heads"),
        ("--config.gird.num_heads=3", "did you mean grid.num_heads"),
        ("--config.num_heads=3", "did you mean grid.num_heads"),
        ("--mode=sudy", "did you mean study?"),
        ("--mode=", "known: data, eval, report, status, study, train"),
        ("--cells=d016_h002", "did you mean d016_h001"),
        ("--cells=d016_h001,d16_h16", "'d16_h16', which is not in the grid; did you mean d016_h016"),
        ("--config.claims.cell=d16_h16", "claims.cell=d16_h16 is no cell of this grid; did you mean d016_h016"),
        ("--launcher=", "known: here, processes"),
        ("--launcher=proceses", "did you mean processes?"),
        ("--workers=2", "--workers=2 needs --launcher=processes"),
        ("--workers=0", "--workers=0 must be at least 1"),
        ("--workers=two", "--workers=two must be a whole number"),
        ("eval", "did you mean --mode=eval?"),
        ("d016_h001", "stray argument; write --NAME=VALUE"),
        ("smok", "did you mean --config=configs/smoke.py?"),
        ("configs/full.py", "did you mean --config=configs/full.py?"),
        # Nothing where something is needed.
        ("--cells=", "empty name"),
        ("--cells= ", "empty name"),
        ("--cells=d016_h001,,d016_h016", "empty name"),
        ("--workdir=", "--workdir= is empty"),
        ("--workdir", "Missing value for flag --workdir"),
        ("--flagfile=/none", "Unable to open flagfile"),
        ("--config.grid.num_heads", "Missing value"),
        ("--config.grid.d_model=()", "config.grid.d_model is empty; give at least one value"),
        ("--config.grid.d_model=", "each of its values a whole number, such as --config.grid.d_model=1,8"),
        ("--config.grid.learning_rates=()", "such as --config.grid.learning_rates=0.01,0.02"),
        ("--config.grid.init_seeds=()", "is empty"),
        # Wrong types.
        ("--config.train.steps=abc", "--config.train.steps=abc must be a whole number"),
        ("--config.train.steps=1.5", "--config.train.steps=1.5 must be a whole number"),
        ("--config.train.clip_norm=much", "must be a number"),
        ("--config.grid.num_heads=1,a", "a tuple, each of its values a whole number"),
        ("--config.grid.num_heads=1,1.5", "a tuple, each of its values a whole number"),
        ("--config.grid.learning_rates=nan", "a tuple, each of its values a number"),
        ("--config.grid=3", "--config.grid is a section; set one of its fields"),
        # Sizes.
        ("--config.grid.num_heads=3", "num_heads=3 does not divide d_model=16; divisors: 1, 2, 4, 8, 16"),
        ("--config.grid.num_heads=0", "must be above 0"),
        ("--config.grid.d_model=-16", "must be above 0"),
        ("--config.grid.d_k=-1", "must be above 0"),
        ("--config.train.batch_size=0", "must be above 0"),
        ("--config.data.seq_len=0", "must be above 0"),
        ("--config.model.d_ff=-1", "must be at least 0"),
        ("--config.train.clip_norm=inf", "finite"),
        ("--config.grid.learning_rates=.01,1e39", "it may be 1e+30 at most"),
        ("--config.grid.init_seeds=-1", "must be at least 0"),
        ("--config.grid.init_seeds=4294967296", "it may be 4,294,967,295 at most"),
        ("--config.train.steps=3000000000", "it may be 2,147,483,647 at most"),
        ("--config.grid.num_heads=1,1", "names a value twice"),
        ("--config.train.warmup_steps=24", "train.warmup_steps=24 must be below train.steps=24"),
        ("--config.train.profile_steps=10", "must be the first and the last step to trace"),
        ("--config.train.profile_steps=20,24", "both below train.steps=24"),
        ("--config.eval.stride=17", "exceeds data.seq_len=16"),
        ("--config.data.tune_fraction=0.96", "leave nothing to train on"),
        ("--config.grid.seeds=crossed", "needs grid.data_seeds"),
        ("--config.grid.data_seeds=5,6", "leave data_seeds empty, or set grid.seeds=crossed"),
        # Choices.
        ("--config.model.dtype=float31", "float32, bfloat16, float64"),
        ("--config.model.dtype=float16", "its softmax would overflow at logits of 65504; use bfloat16"),
        ("--config.grid.match=size", "params, flops, none"),
        ("--config.data.tokenizer=words", "bytes, bpe"),
        ("--config.data.piece=middle", "first, last, all"),
        ("--config.data.demand=both", "joint, switch"),
        ("--config.data.sources=same", "exchangeable, tagged"),
        ("--config.data.vocab_size=256", "data.vocab_size=256 is too small: text needs the 256 bytes"),
        ("--config.data.vocab_size=65537", "65,536 is the most"),
        # Relations; tests/train/data/relations/test_parse.py has them all.
        ("--config.data.noise=-0.1", "config.data.noise=-0.1 must be at least 0"),
        ("--config.data.offsets=()", "config.data.offsets is empty"),
        ("--config.model.attention=fastest", "fastest"),
        ("--config.mesh.data=2", "mesh.data=2"),
        ("--config.mesh.replicas=64", "mesh.replicas=64, but there"),
        ("--config.train.accumulate=3", "does not divide into train.accumulate=3 parts"),
        ("--config.model.remat=some", "none, elementwise, block"),
        ("--config.model.layers=looped", "auto, unrolled, scanned"),
        # Memory, of all cells at once.
        ("--config.train.memory_limit_gb=0.0001", "d016_h016"),
        ("--config.train.batch_size=100000000", "d016_h016"),
    ],
)
def test_flags(flag, said, study, capsys):
    assert said in refused(capsys, *study.arguments(), flag)
    assert not (study.workdir / "config.json").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "does not exist"),
        ("def get_config(:\n", "is no valid Python: invalid syntax in line 1"),
        ("x = 1\n", "has no function get_config"),
        ("def get_config():\n    raise KeyError('a')\n", "KeyError: 'a'"),
        ("def get_config():\n    raise ValueError('two\\nlines')\n", "own.py: two lines.\n"),
        ("import no_such_module\n", "No module named 'no_such_module'"),
        ("import sys\nsys.exit(0)\n", "SystemExit"),
        ("def get_config():\n    return None\n", "returns NoneType"),
        ("def get_config(argument):\n    return None\n", "TypeError"),
        ("from configs import default\nfrom ml_collections import ConfigDict\n\n\ndef get_config():\n"
         "    return ConfigDict({**default.get_config().to_dict(), 'extra': 1})\n", "config has no field 'extra'"),
        ("from ml_collections import ConfigDict\n\n\ndef get_config():\n    return ConfigDict({'grid': {}})\n",
         "lacks model, data"),
    ],
)  # fmt: skip
def test_config_files(content, said, tmp_path, capsys):
    file = tmp_path / "own.py"
    if content is not None:
        file.write_text(content)
    assert said in refused(capsys, f"--config={file}", f"--workdir={tmp_path / 'workdir'}")


def test_config_files_that_are_none(tmp_path, capsys):
    workdir = f"--workdir={tmp_path / 'workdir'}"
    assert "did you mean --config=configs/smoke.py?" in refused(capsys, "--config=configs/smok.py", workdir)
    assert "is a folder" in refused(capsys, f"--config={tmp_path}", workdir)
    assert "--config= is empty" in refused(capsys, "--config=", workdir)
    assert "--config= is empty" in refused(capsys, workdir, "--config")
    (tmp_path / "config.txt").write_text("")
    assert "ends in .py" in refused(capsys, f"--config={tmp_path / 'config.txt'}", workdir)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("arms.py:longer", "name an arm, --config=configs/arms.py:ARM with tokens2, "),
        ("relations_full.py", "name the cells, --config=configs/relations_full.py:CELLS with joint_exchangeable_1, "),
        ("relations_sanity.py:doses", "name a family, --config=configs/relations_sanity.py:FAMILY with dose, kinds, "),
    ],
)
def test_configs_that_want_an_argument(name, said, tmp_path, capsys):
    """The config's own sentence alone."""
    refusal = refused(capsys, f"--config=configs/{name}", f"--workdir={tmp_path / 'workdir'}")
    assert refusal.startswith(f"Error: --config=configs/{name}: {said}") and refusal.endswith(
        f", not {name.partition(':')[2]!r}.\n"
    )


def test_sources(study, tmp_path, capsys):
    """Each through the command line once; tests/train/ has them all. A corrected command then starts anew."""
    contents = {"empty": b"", "short": b"one line\n", "binary": b"\x00\x01" * 5000, "latin": b"\xe9" * 99}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    arguments = study.arguments()
    for source, said in {
        "nowhere": "the sources are docs, file:",
        "relations": "a language has no end, so say how much",
        "conllu:": "such as conllu:texts",
        f"conllu:{tmp_path}/*.none": "No file matches conllu:",
        f"conllu:{tmp_path}": "/*.conllu",
        f"conllu:{tmp_path}/latin": "not UTF-8",
        f"conllu:{tmp_path}/short": "1 columns, not 10",
        "": "the sources are docs, file:",
        "file:": "names no file",
        f"file:{tmp_path}/missing.txt": "does not exist",
        f"file:{tmp_path}/*.none": "No file matches",
        f"file:{tmp_path}": "is a folder",
        f"file:{tmp_path}/empty": "is empty",
        f"file:{tmp_path}/short": "bytes or more",
        f"file:{tmp_path}/binary": "zero byte",
        f"file:{tmp_path}/latin": "not UTF-8",
        "tfds:no_such_data_set": "file:PATH-or-glob",
        "tfds:lm1b": "file:PATH-or-glob",
    }.items():
        more = ["--config.data.max_bytes=0"] if source == "relations" else []
        if source == "tfds:lm1b":
            said = "tensorflow"
        answer = refused(capsys, *arguments, *more, f"--config.data.source={source}")
        assert said in answer.replace("TensorFlow", "tensorflow")
    assert not (study.workdir / "config.json").exists()
    with pytest.raises(AssertionError, match="bad input must not come this far"):
        study.run()  # the corrected command is not refused


def test_workdirs(study, done, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "workdir"  # root may write anywhere, but not below a file
    assert "cannot be written (Not a directory)" in refused(capsys, study.config, f"--workdir={below}")
    assert "cannot be written (File exists)" in refused(capsys, study.config, f"--workdir={below.parent}")
    for mode in ("eval", "report", "status"):
        assert "holds no study" in refused(capsys, f"--mode={mode}", f"--workdir={tmp_path / 'none'}")
        assert "holds no study" in refused(capsys, f"--mode={mode}", f"--workdir={below}")
        assert "drop --config" in refused(capsys, f"--mode={mode}", study.config, f"--workdir={done.workdir}")
        assert "drop --config" in refused(
            capsys, f"--mode={mode}", "--config.train.steps=9", f"--workdir={done.workdir}"
        )
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("folder", ["data", "cells", "results"])
def test_a_file_where_a_folder_belongs(folder, study, capsys):
    study.workdir.mkdir()
    (study.workdir / folder).write_text("")
    assert f"{folder} is a file where a study keeps a folder" in refused(capsys, *study.arguments())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda record: {**record, "format": 99}, "newer version (format 99, this one reads 2)"),
        (lambda record: {}, "is not a study's"),
        (lambda record: [1], "is not a study's"),
        (lambda record: {"format": 2}, "lacks config, versions"),
        (lambda record: {**record, "config": {**record["config"], "new": {"field": 1}}}, "new"),
    ],
)
def test_records_of_other_versions(change, said, done, capsys):
    path = done.workdir / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    assert said in refused(capsys, *done.arguments())
    assert said in refused(capsys, *done.arguments("--mode=status"))


def test_workdirs_of_older_versions(done, capsys):
    """Refused by every mode but status, which lists what is there, whatever the config says."""
    path = done.workdir / "config.json"
    path.write_text(json.dumps({"format": 1, "config": {"grid": {}}}))
    shutil.copytree(done.cell("d016_h001"), done.cell("d016_h001_old"))
    before = sorted(done.workdir.rglob("*"))
    for mode in ("study", "train", "eval", "report"):
        said = refused(capsys, *done.arguments(f"--mode={mode}"))
        assert "written by an older version (format 1, this one reads 2); run it with the version that wrote it" in said
        assert "or use another --workdir" in said
    assert sorted(done.workdir.rglob("*")) == before
    assert done.run("--mode=status") == 0
    said = capsys.readouterr().out
    assert all(f"{name} " in said for name in ("d016_h001", "d016_h001_old", "d016_h016")) and said.count("done") == 3
    assert done.run("--mode=status", "--cells=d016_h001_old") == 0
    assert capsys.readouterr().out.count("done") == 1


@pytest.mark.parametrize("content", ["", "{", "\0\0\0"])
def test_a_garbled_record(content, done, capsys):
    (done.workdir / "config.json").write_text(content)
    for more in ([], ["--mode=eval"], ["--mode=report"], ["--mode=status"]):
        assert "config.json is not readable as JSON" in refused(capsys, *done.arguments(*more))


def test_a_garbled_cell_is_named_before_training(done, capsys):
    (done.cell("d016_h016") / "packs.json").write_text("[{")
    assert "d016_h016/packs.json is not readable" in refused(capsys, *done.arguments())


def test_more_workers_than_slots(study, capsys, monkeypatch):
    monkeypatch.setattr(slots, "count", lambda platform, devices: 2)
    processes = ["--launcher=processes", "--workers=3"]
    assert "this host has 2 slots (a core or a GPU each); ask for 2 at most" in refused(
        capsys, *study.arguments(*processes)
    )
    split = ["--launcher=processes", "--config.mesh.data=2"]
    assert "mesh.data=2, mesh.replicas=0 use several" in refused(capsys, *study.arguments(*split))
    together = ["--launcher=processes", "--config.train.memory_limit_gb=0.001"]
    assert "d016_h001, d016_h016 side by side need" in refused(capsys, *study.arguments(*together))
    assert not (study.workdir / "config.json").exists()


def test_the_exit_code_of_the_process(study, tmp_path):
    """As above, through the shell: nothing but one sentence is printed."""
    begun = subprocess.run(
        [sys.executable, str(HERE.parents[1] / "main.py"), "--config.train.stps=3", f"--workdir={study.workdir}"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert begun.returncode == 2 and begun.stdout == "" and begun.stderr.count("\n") == 1
    assert "did you mean train.steps" in begun.stderr


def test_the_guard_of_these_tests_is_on(study):
    with pytest.raises(AssertionError, match="must not come this far"):
        study.run()
