"""Headroom: what do attention heads buy, and what do they do?

python main.py [--config=configs/docs.py] [--config.grid.num_heads=1,8] [--workdir=runs/mine]
               [--mode=study|train|eval|report|status|data] [--cells=d064_h001,d064_h008] [--arms=runs/longer]
               [--launcher=here|processes] [--workers=2]

Trains the grid of a config, restores every cell from its checkpoint, and writes results/ and report/index.html into the
workdir. The same command again continues where it stopped. Modes eval, report and status take the config from the
workdir. Exit codes: 0 done, 1 a fault, 2 bad input, 3 done but some cell failed, 75 asked to stop (run it again).
"""

import difflib
import os
import pathlib
import re
import signal
import sys
from typing import NoReturn

if __name__ == "__main__":  # what follows takes a second to import
    signal.signal(signal.SIGTERM, lambda *_: os._exit(75))

from absl import flags
from ml_collections import config_flags

from train import config_file
from train.config import InputError, check_field, freeze, nearest, wrong_type
from train.hosts import slots, xla_flags
from train.hosts.preemption import Notice, Preempted

HERE = pathlib.Path(__file__).resolve().parent
MODES = ("study", "train", "eval", "report", "status", "data")
FROM_WORKDIR = ("eval", "report", "status")
NAMES = ("config", "workdir", "mode", "cells", "arms", "launcher", "workers", "help")
WORKER = (sys.executable, str(HERE / "main.py"), "worker")  # what starts one
DONE, FAULT, BAD_INPUT, SOME_CELL_FAILED, RUN_AGAIN = 0, 1, 2, 3, 75


def parse(argv: list[str]) -> tuple[dict, str, pathlib.Path, list[str], list[str], slots.Launcher]:
    """(config, mode, workdir, cells, arms, launcher) of a command line.

    Raises:
      InputError: an unknown flag, mode or field, a value of the wrong type, a config that does not load, or a stray
        argument.
    """
    name, argv = _config_flag(argv)
    fields = [word.lstrip("-").split("=")[0].removeprefix("config.") for word in argv if re.match("--?config[.]", word)]
    for field in fields:
        check_field(field)
    loaded, file = config_file.load("configs/default.py" if name is None else name, HERE)
    found = flags.FlagValues()
    argument = (name or "").partition(":")[2]
    study = f"{file.stem}_{argument}" if argument.isidentifier() else file.stem
    flags.DEFINE_string("workdir", f"runs/{study}", "where the study lives", flag_values=found)
    flags.DEFINE_string("mode", "study", "what to do; study = train, eval and report", flag_values=found)
    flags.DEFINE_list("cells", None, "only these, such as d064_h001,d064_h008; default all", flag_values=found)
    flags.DEFINE_list("arms", [], "workdirs of other studies that the verdicts cite", flag_values=found)
    flags.DEFINE_string("launcher", "", "here or processes; default as begun, or what is faster", flag_values=found)
    flags.DEFINE_integer("workers", 0, "processes side by side; default one a slot", flag_values=found)
    try:
        config_flags.DEFINE_config_dict("config", loaded, "the study", flag_values=found, sys_argv=["main.py", *argv])
        stray = found(["main.py", *argv])[1:]
    except flags.UnrecognizedFlagError as error:
        raise InputError(f"--{error.flagname} is no flag; {nearest(error.flagname, NAMES)}") from error
    except flags.IllegalFlagValueError as error:
        raise InputError(_illegal(str(error))) from error
    except flags.Error as error:
        raise InputError(f"{str(error).rstrip('.')}.") from error
    except (AttributeError, KeyError) as error:
        raise InputError(f"{file} lacks a field that the command line sets ({error}); add it there.") from error
    if stray:
        known = {mode: f"--mode={mode}" for mode in MODES} | config_file.flags(HERE)
        close = difflib.get_close_matches(pathlib.Path(stray[0]).stem, known, n=1)
        hint = f"did you mean {known[close[0]]}?" if close else f"write --NAME=VALUE, with {', '.join(NAMES)}."
        raise InputError(f"{stray[0]!r} is a stray argument; {hint}")
    if found.mode not in MODES:
        raise InputError(f"--mode={found.mode} is no mode; {nearest(found.mode, MODES)}")
    if found.mode in FROM_WORKDIR and (name is not None or fields):
        raise InputError(f"--mode={found.mode} takes its config from the workdir; drop --config.")
    if not found.workdir.strip():
        raise InputError("--workdir= is empty; name a folder, such as --workdir=runs/mine, or leave the flag out.")
    if found.cells is not None and not all(found.cells or [""]):
        raise InputError(
            "--cells= has an empty name; write names such as --cells=d064_h001,d064_h008, or leave it out."
        )
    if found["launcher"].present and found.launcher not in slots.LAUNCHERS:
        raise InputError(f"--launcher={found.launcher} is no launcher; {nearest(found.launcher, slots.LAUNCHERS)}")
    if found["workers"].present and found.workers < 1:
        raise InputError(f"--workers={found.workers} must be at least 1; leave it out for one worker a core or GPU.")
    launcher = slots.Launcher(found.launcher, found.workers, WORKER)
    return found.config.to_dict(), found.mode, pathlib.Path(found.workdir), found.cells or [], found.arms, launcher


def _config_flag(argv: list[str]) -> tuple[str | None, list[str]]:
    """The value of --config, None without one, and the other arguments."""
    name, others, words = None, [], iter(argv)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag in ("--config", "-config"):
            name = value if equals else next(words, "")
        else:
            others.append(word)
    return name, others


def _illegal(said: str) -> str:
    """The sentence for what absl said of a value, 'flag --NAME=VALUE: why'."""
    field = re.match(r"flag --config\.([\w.]+)=(.*?): ", said, re.DOTALL)
    if field:
        return wrong_type(*field.groups())
    workers = re.match(r"flag --workers=(.*?): ", said, re.DOTALL)
    return f"--workers={workers[1]} must be a whole number, such as --workers=2." if workers else f"{said.rstrip('.')}."


def _evaluation():
    """What a study calls of eval/ (train.study.order.Evaluation)."""
    from eval import doses, summary, tables
    from eval.judge import arms as arms_beside
    from eval.judge import evidence, verdicts
    from eval.judge.claims import c4b_capacity
    from eval.judge.paired import decision
    from eval.report import page
    from train.losses import answers, documents
    from train.study import order

    return order.Evaluation(
        document_losses=documents.document_losses,
        prospect=decision.prospect,
        evaluate_pack=tables.evaluate_pack,
        write_tables=tables.write_tables,
        load_arms=arms_beside.load,
        evidence=evidence.Evidence,
        cells_to_price=verdicts.cells_to_price,
        write_verdicts=verdicts.write,
        write_report=page.write,
        excess_of=answers.excess_of,
        asks_for_hand_built=c4b_capacity.asks_for_hand_built,
        write_doses=doses.write_table,
        show_cells=summary.show_cells,
        show_verdicts=summary.show_verdicts,
        show_status=summary.show_status,
    )


def _work(workdir: str, slot: str, platform: str) -> int:
    """A worker of a study, started by another process of it (train/hosts/workers.py)."""
    slots.take(int(slot), platform)
    stop = Notice(patient=True)
    with stop.installed():
        try:
            with stop.at_once():
                evaluation = _evaluation()
                from train.hosts import worker
        except Preempted:
            return RUN_AGAIN
        return worker.main(workdir, evaluation, stop)


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
                config, mode, workdir, cells, arms, launcher = parse(argv)
                frozen = freeze(config)
                if launcher.name == "processes":
                    slots.leave_gpus_to_workers()
                from train.study import order

                evaluation = _evaluation()
            return order.run(frozen, mode, workdir, cells, arms, evaluation, stop, launcher)
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        return BAD_INPUT
    except Preempted:
        print("Stopped as asked, before anything was begun. Run the same command again.")
        return RUN_AGAIN


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
