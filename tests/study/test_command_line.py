"""What a command line means, and the exit codes."""

import json
import os
import pathlib
import signal
import sys

import pandas as pd
import pytest

import main
from configs import full
from tests.study.tiny import HERE
from train import exit_codes
from train.config import InputError
from train.hosts.preemption import Notice, Preempted

SMOKE = "--config=configs/smoke.py"


def test_defaults():
    config, asked = main.parse([])
    assert (asked["mode"], asked["path"], asked["cells"]) == ("study", pathlib.Path("runs/default"), [])
    launcher = asked["launcher"]
    assert asked["arms"] == asked["measure"] == [] and (launcher.name, launcher.workers) == ("", 0)
    assert config["grid"]["num_heads"] == ()


def test_config_and_fields():
    config, asked = main.parse(
        [SMOKE, "--config.grid.num_heads=1,8", "--config.train.steps=9", "--mode=train", "--cells=d016_h001, d016_h008"]
    )
    assert config["grid"]["num_heads"] == (1, 8) and config["train"]["steps"] == 9
    assert (asked["mode"], asked["path"]) == ("train", pathlib.Path("runs/smoke"))
    assert asked["cells"] == ["d016_h001", "d016_h008"]


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--config.grid.num_heads=8", (8,)),
        ("--config.grid.num_heads=(1,8)", (1, 8)),
        ("--config.grid.num_heads=()", ()),
        ("--config.grid.num_heads=1,8,16", (1, 8, 16)),
    ],
)
def test_tuples(flag, value):
    assert main.freeze(main.parse([SMOKE, flag])[0]).grid.num_heads == value


def test_rates_may_be_whole_numbers():
    assert main.freeze(main.parse([SMOKE, "--config.grid.learning_rates=1,1e-3"])[0]).grid.learning_rates == (1.0, 1e-3)


def test_values_in_words_of_their_own():
    spaced = main.parse(["--config", "configs/smoke.py", "--mode", "train", "--config.train.steps", "9"])
    assert spaced == main.parse([SMOKE, "--mode=train", "--config.train.steps=9"])


def test_a_config_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main.parse([SMOKE])[0]["data"]["max_bytes"] == 200_000
    (tmp_path / "configs").mkdir()
    own = (HERE.parents[1] / "configs" / "smoke.py").read_text().replace("200_000", "100_000")
    (tmp_path / "configs" / "smoke.py").write_text(own)
    assert main.parse([SMOKE])[0]["data"]["max_bytes"] == 100_000  # the current folder comes first


def test_an_arm_has_a_workdir_of_its_own():
    config, asked = main.parse(["--config=configs/arms.py:tokens4"])
    assert config["train"]["steps"] == 4 * full.get_config().train.steps
    assert asked["path"] == pathlib.Path("runs/arms_tokens4")
    with pytest.raises(InputError, match="name an arm, .* with tokens2, tokens4"):
        main.parse(["--config=configs/arms.py:longer"])


def test_an_argument_of_get_config(text):
    config, asked = main.parse([f"--config={HERE / 'tiny_config.py'}:{text}"])
    assert config["data"]["source"] == f"file:{text}" and asked["path"] == pathlib.Path("runs/tiny_config")


def test_argv_is_left_alone():
    before = list(sys.argv)
    main.parse([SMOKE, "--config.train.steps=9"])
    assert sys.argv == before


@pytest.mark.parametrize("flag", ["--help", "-h", "--helpfull"])
def test_help(flag, capsys):
    assert main.main([SMOKE, flag, "--nonsense"]) == 0
    output = capsys.readouterr().out
    assert "--workdir" in output and "75" in output


def test_exit_codes_are_what_the_documentation_says(quiet):
    """0 here; 1, 3 and 75 in test_faults.py and test_resume.py, 2 in test_bad_input.py."""
    assert quiet.run("--mode=status") == 0
    table = (exit_codes.DONE, exit_codes.FAULT, exit_codes.BAD_INPUT, exit_codes.SOME_CELL_FAILED, exit_codes.RUN_AGAIN)
    assert table == (0, 1, 2, 3, 75)
    for code in ("0 done", "1 a fault", "2 bad input", "3 done but some cell failed", "75 asked to stop"):
        assert code in " ".join(main.__doc__.split())


def test_train_alone_then_study(study, quiet):
    assert study.run("--mode=train") == 0
    assert not (study.workdir / "results").exists()
    assert study.state("d016_h001") == "done"
    assert study.run("--mode=eval") == 0
    assert study.rows().equals(quiet.rows())


def test_report_from_what_is_there(done, quiet):
    page = done.workdir / "report" / "index.html"
    page.unlink()
    assert done.run("--mode=report") == 0
    assert page.exists() and done.rows().equals(quiet.rows())


def test_what_a_study_says_at_its_end(done, capsys):
    """A row a cell: rate, losses, distance to the bigram model, how training fell, step time; then the page's path."""
    assert done.run() == 0
    said = capsys.readouterr().out
    for name in ("cell", "rate", "nats/token", "bits/byte", "vs bigram", "training loss", "ms/step"):
        assert name in said
    for row in pd.read_csv(done.workdir / "results" / "cells.csv").itertuples():
        (line,) = [line for line in said.splitlines() if line.split()[:2] == [row.cell, "0.01"]]
        first, arrow, last = line.split("%")[1].split()[:3]
        assert f"{row.test_loss:.3f}" in line and f"{-row.below_bigram:+.1%}" in line
        assert arrow == "->" and float(first) > float(last)
    assert f"Report: {done.workdir / 'report' / 'index.html'}" in said
    assert "non-embedding parameters a cell, within 0.000%" in said


def test_names_that_look_like_markup(study, capsys):
    """Rich would take `[/b]` for the end of something bold."""
    odd = type(study)(study.text, study.workdir.parent / "a[/b]")
    assert odd.run("--mode=train", "--cells=d016_h001") == 0
    status = odd.cell("d016_h001") / "status.json"
    status.write_text(json.dumps({"state": "failed", "reason": "no room at [/tmp/x]"}))
    capsys.readouterr()
    assert odd.run("--mode=status") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "a[/b]" in said and "[/tmp/x]" in said
    text = odd.workdir / "text.txt"
    text.write_text(study.text.read_text())
    assert main.main(["--mode=data", f"--config.data.source=file:{text}"]) == 0
    assert "a[/b]/text.txt" in "".join(capsys.readouterr().out.split())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_other_precisions(dtype, study):
    code, said = study.finish(f"--config.model.dtype={dtype}")
    assert code == 0 and "Warning" not in said, said
    assert study.finish("--mode=eval")[0] == 0


def test_signals_are_given_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    notice = Notice()
    with notice.installed():
        os.kill(os.getpid(), signal.SIGINT)
        assert notice.requested
        with pytest.raises(Preempted):
            notice.check()
        with pytest.raises(Preempted):
            os.kill(os.getpid(), signal.SIGTERM)  # the second does not wait
            signal.pause()
    assert before == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))


def test_a_signal_within_at_once_interrupts():
    notice = Notice()
    with notice.installed(), pytest.raises(Preempted), notice.at_once():
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()


def test_a_stopped_wait_leaves_its_work():
    notice = Notice()
    with notice.installed():
        assert notice.wait_for(lambda: 3) == 3
        with pytest.raises(ZeroDivisionError):
            notice.wait_for(lambda: 1 / 0)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Preempted):
            notice.wait_for(lambda: 3)
