"""Headroom: what do attention heads buy, and what do they do?

python main.py [--config=configs/full.py] [--config.grid.num_heads=1,8] [--workdir=runs/mine]
               [--mode=study|train|eval|report|status|data] [--cells=d064_h001,d064_h008] [--arms=runs/longer]
               [--launcher=here|processes] [--workers=2]

Trains the grid of a config, restores every cell from its checkpoint, and writes results/ and report/index.html into the
workdir. The same command again continues where it stopped. Modes eval, report and status take the config from the
workdir. Exit codes: 0 done, 1 a fault, 2 bad input, 3 done but some cell failed, 75 asked to stop (run it again).
"""

import difflib
import os
import pathlib
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from train.exit_codes import BAD_INPUT, DONE, RUN_AGAIN

if __name__ == "__main__":  # what follows takes a second to import
    signal.signal(signal.SIGTERM, lambda *_: os._exit(RUN_AGAIN))

from absl import flags
from ml_collections import config_flags

from train import config_file
from train.config import InputError, check_field, freeze, nearest, refuse, wrong_type
from train.hosts import slots, xla_flags
from train.hosts.preemption import Notice, Preempted

HERE = pathlib.Path(__file__).resolve().parent
MODES = ("study", "train", "eval", "report", "status", "data")
FROM_WORKDIR = ("eval", "report", "status")
NAMES = ("config", "workdir", "mode", "cells", "arms", "measure", "launcher", "workers", "help")
WORKER = (sys.executable, str(HERE / "main.py"), "worker")  # what starts one


class _Parser(flags.ArgumentParser):
    """Parses as another one does, and refuses a text in a sentence of ours."""

    def __init__(self, parser: flags.ArgumentParser, sentence: Callable[[str], str]):
        self._parser, self._sentence = parser, sentence

    def parse(self, argument: str):
        try:
            return self._parser.parse(argument)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(self._sentence(argument)) from error


def parse(argv: list[str]) -> tuple[dict, dict]:
    """The config of a command line, and what else it asks: arguments of eval.study.run.

    Raises:
      InputError: an unknown flag, mode or field, a value of the wrong type, a config that does not load, or a stray
        argument.
    """
    name, argv = _config_flag(argv)
    fields = [word.partition("=")[0].partition(".")[2] for word in argv if word.startswith(("--config.", "-config."))]
    for field in fields:
        check_field(field)
    loaded, file = config_file.load("configs/default.py" if name is None else name, HERE)
    given, argument = flags.FlagValues(), (name or "").partition(":")[2]
    study = f"{file.stem}_{argument}" if argument.isidentifier() else file.stem
    for define, flag, default, about in (
        (flags.DEFINE_string, "workdir", f"runs/{study}", "where the study lives"),
        (flags.DEFINE_string, "mode", "study", "what to do; study = train, eval and report"),
        (flags.DEFINE_list, "cells", None, "only these, such as d064_h001,d064_h008; default all"),
        (flags.DEFINE_list, "arms", [], "workdirs of other studies that the verdicts cite"),
        (flags.DEFINE_list, "measure", [], "only these measurements; default those of every study"),
        (flags.DEFINE_string, "launcher", "", "here or processes; default as begun, or what is faster"),
        (flags.DEFINE_integer, "workers", 0, "processes side by side; default one a slot"),
    ):
        define(flag, default, about, flag_values=given)
    said = {"workers": "--workers={} must be a whole number, such as --workers=2.".format}
    try:
        config_flags.DEFINE_config_dict("config", loaded, "the study", flag_values=given, sys_argv=["main.py", *argv])
        for flag, sentence in (said | {f"config.{field}": partial(wrong_type, field) for field in fields}).items():
            given[flag].parser = _Parser(given[flag].parser, sentence)
        stray = given(["main.py", *argv])[1:]
    except flags.UnrecognizedFlagError as error:
        raise InputError(f"--{error.flagname} is no flag; {nearest(error.flagname, NAMES)}") from error
    except flags.IllegalFlagValueError as error:
        raise error.__context__ from error  # what _Parser raised
    except flags.Error as error:
        raise InputError(f"{str(error).rstrip('.')}.") from error
    except (AttributeError, KeyError) as error:
        raise InputError(f"{file} lacks a field that the command line sets ({error}); add it there.") from error
    if stray:
        known = {mode: f"--mode={mode}" for mode in MODES} | config_file.flags(HERE)
        close = difflib.get_close_matches(pathlib.Path(stray[0]).stem, known, n=1)
        hint = f"did you mean {known[close[0]]}?" if close else f"write --NAME=VALUE, with {', '.join(NAMES)}."
        raise InputError(f"{stray[0]!r} is a stray argument; {hint}")
    refuse(
        given.mode not in MODES and f"--mode={given.mode} is no mode; {nearest(given.mode, MODES)}",
        given.mode in FROM_WORKDIR
        and (name is not None or fields)
        and f"--mode={given.mode} takes its config from the workdir; drop --config.",
        not given.workdir.strip()
        and "--workdir= is empty; name a folder, such as --workdir=runs/mine, or leave the flag out.",
        given.cells is not None
        and not all(given.cells or [""])
        and "--cells= has an empty name; write names such as --cells=d064_h001,d064_h008, or leave it out.",
        given["launcher"].present
        and given.launcher not in slots.LAUNCHERS
        and f"--launcher={given.launcher} is no launcher; {nearest(given.launcher, slots.LAUNCHERS)}",
        given["workers"].present
        and given.workers < 1
        and f"--workers={given.workers} must be at least 1; leave it out for one worker a core or GPU.",
    )
    asked = {name: given[name].value or [] for name in ("cells", "arms", "measure")}
    asked |= {"path": pathlib.Path(given.workdir), "mode": given.mode}
    asked["launcher"] = slots.Launcher(given.launcher, given.workers, WORKER)
    return given.config.to_dict(), asked


def _config_flag(argv: list[str]) -> tuple[str | None, list[str]]:
    """The value of --config, None without one, and the other arguments."""
    alone = flags.FlagValues()
    flags.DEFINE_string("config", None, "a config file", flag_values=alone)
    alone.set_gnu_getopt()  # other flags and their values do not end the search
    try:
        others = alone(["main.py", *argv], known_only=True)[1:]
    except flags.Error as error:
        if argv[-1].lstrip("-") == "config":  # without a value
            return "", argv[:-1]
        raise InputError(f"{str(error).rstrip('.')}.") from error
    return alone.config, others


def _work(workdir: str, slot: str, platform: str) -> int:
    """A worker of a study, started by another process of it (train/hosts/workers.py)."""
    slots.take(int(slot), platform)
    stop = Notice(patient=True)
    with stop.installed():
        try:
            with stop.at_once():
                from eval import study
        except Preempted:
            return RUN_AGAIN
        return study.work(workdir, stop)


def leave(code: int) -> NoReturn:
    """Ends the process. What is done stays done: to a signal that arrives only now, Python, which puts its handlers
    back to the default before it is gone, would answer with -SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(code)


def main(argv: list[str]) -> int:
    if any(argument in ("-h", "--help", "--helpfull", "--helpshort") for argument in argv):
        print(__doc__ + "\nconfigs/default.py explains every config field; README.md the rest.")
        return DONE
    xla_flags.use()
    if argv[:1] == [WORKER[-1]]:
        return _work(*argv[1:])
    stop = Notice()
    try:
        with stop.installed():
            with stop.at_once():  # imports take seconds
                config, asked = parse(argv)
                frozen = freeze(config)
                if asked["launcher"].name == "processes":
                    slots.leave_gpus_to_workers()
                from eval import study
            return study.run(frozen, stop=stop, **asked)
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        return BAD_INPUT
    except Preempted:
        print("Stopped as asked, before anything was begun. Run the same command again.")
        return RUN_AGAIN


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
