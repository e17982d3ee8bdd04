"""Headroom: what do attention heads buy, and what do they do?

python main.py [--config=configs/docs.py] [--config.grid.num_heads=1,8] [--workdir=runs/mine]
               [--mode=study|train|eval|report|status] [--cells=d064_h001,d064_h008]

Trains the grid of a config, restores every cell from its checkpoint, and writes results/ and report/index.html into the
workdir. The same command again continues where it stopped. Modes eval, report and status take the config from the
workdir. Exit codes: 0 done, 1 a fault, 2 bad input, 3 done but some cell failed, 75 asked to stop (run it again).
"""

import difflib
import os
import pathlib
import sys

from absl import flags
from ml_collections import config_flags

from train.config import InputError, check_field, freeze, nearest

HERE = pathlib.Path(__file__).resolve().parent
MODES = ("study", "train", "eval", "report", "status")
FROM_WORKDIR = ("eval", "report", "status")
DONE, FAULT, BAD_INPUT, SOME_CELL_FAILED, RUN_AGAIN = 0, 1, 2, 3, 75


def parse(argv: list[str]) -> tuple[dict, str, pathlib.Path, list[str]]:
    """(config, mode, workdir, cells) of a command line.

    Raises:
      InputError: an unknown flag, mode or field, a value of the wrong type, a config that does not load, or a stray
        argument.
    """
    sys.argv[1:] = argv = [_from_here(argument) for argument in argv]
    found = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "where the study lives; default runs/NAME-OF-CONFIG", flag_values=found)
    flags.DEFINE_enum("mode", "study", MODES, "what to do; study = train, eval and report", flag_values=found)
    flags.DEFINE_list("cells", [], "only these, such as d064_h001,d064_h008; default all", flag_values=found)
    names = ("config", *found, "help")
    fields = [argument.lstrip("-").split("=")[0] for argument in argv if argument.lstrip("-").startswith("config.")]
    for field in fields:
        check_field(field.removeprefix("config."))
    try:
        config_flags.DEFINE_config_file("config", str(HERE / "configs/default.py"), "the study", flag_values=found)
        rest = found([sys.argv[0], *argv])[1:]
        config = found.config.to_dict()
        file = pathlib.Path(config_flags.get_config_filename(found["config"]))
    except flags.UnrecognizedFlagError as error:
        raise InputError(f"--{error.flagname} is no flag; {nearest(error.flagname, names)}") from error
    except flags.Error as error:
        raise InputError(f"{str(error).rstrip('.')}.") from error
    except Exception as error:
        raise InputError(
            f"the config cannot be loaded: {' '.join(str(error).split()) or type(error).__name__}"
        ) from error
    if rest:
        close = difflib.get_close_matches(rest[0], MODES, n=1)
        hint = (
            f"did you mean --mode={close[0]}?" if close else f"flags are written --name=value, with {', '.join(names)}."
        )
        raise InputError(f"{rest[0]!r} is a stray argument; {hint}")
    named = bool(fields) or found["config"].present
    if found.mode in FROM_WORKDIR and named:
        raise InputError(f"--mode={found.mode} takes its config from the workdir; drop --config.")
    return config, found.mode, pathlib.Path(found.workdir or f"runs/{file.stem}"), found.cells


def _from_here(argument: str) -> str:
    """`--config=configs/x.py`, found in the current folder, else beside main.py."""
    name, _, path = argument.rpartition("=")
    file = path.split(":")[0]
    beside = not os.path.exists(file) and (HERE / file).is_file()
    return f"{name}={HERE / path}" if name.lstrip("-") == "config" and beside else argument


def main(argv: list[str]) -> int:
    if any(argument in ("-h", "--help", "--helpfull", "--helpshort") for argument in argv):
        print(__doc__ + "\nconfigs/default.py explains every config field; README.md the rest.")
        return DONE
    try:
        config, mode, workdir, cells = parse(argv)
        frozen = freeze(config)
        from eval import loss, summary, tables
        from eval.report import page
        from train import study

        evaluation = study.Evaluation(
            document_losses=loss.document_losses,
            evaluate_pack=tables.evaluate_pack,
            write_tables=tables.write_tables,
            write_report=page.write,
            show_cells=summary.show_cells,
            show_status=summary.show_status,
        )
        return study.run(frozen, mode, workdir, cells, evaluation)
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        return BAD_INPUT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
