"""Loads a config file: Python whose get_config() returns an ml_collections ConfigDict, such as configs/default.py."""

import difflib
import importlib.util
import pathlib

from ml_collections import ConfigDict

from train.config import InputError, in_a_line, refuse


def load(name: str, home: pathlib.Path) -> tuple[ConfigDict, pathlib.Path]:
    """The config of `name`, PATH or PATH:ARGUMENT of get_config, and the file that it is from.

    Args:
      home: where a relative path is looked for that is not in the current folder.

    Raises:
      InputError: there is no such file, it gives no config, or get_config itself refuses its argument.
    """
    path, *argument = name.split(":", 1)
    file = _find(path, home)
    spec = importlib.util.spec_from_file_location(f"config_{file.stem}", file)
    refuse(spec is None and f"--config={path} is no Python file; it needs a name that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        refuse(
            not hasattr(module, "get_config")
            and f"--config={path} has no function get_config; configs/default.py shows one."
        )
        config = module.get_config(*argument)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        said = f"--config={path} does not load, correct it: {type(error).__name__}: {in_a_line(error)}."
        if isinstance(error, SyntaxError):
            said = f"--config={path} is no valid Python: {error.msg} in line {error.lineno}."
        if type(error) is ValueError:  # so does a config, which imports nothing of ours, refuse its argument
            said = f"--config={name}: {in_a_line(error)}."
        raise InputError(said) from error
    refuse(
        not isinstance(config, ConfigDict)
        and f"get_config() of --config={path} returns {type(config).__name__}, and must a ConfigDict."
    )
    return config, file


def flags(home: pathlib.Path) -> dict[str, str]:
    """By name, the flag of each config of ours."""
    return {file.stem: f"--config=configs/{file.name}" for file in (home / "configs").glob("[!_]*.py")}


def _find(path: str, home: pathlib.Path) -> pathlib.Path:
    places, ours = (pathlib.Path(path), home / path), flags(home)
    close = [ours[stem] for stem in difflib.get_close_matches(pathlib.Path(path).stem, ours, n=2)]
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(sorted(ours.values()))}."
    files = [place for place in places if place.is_file()]
    refuse(
        not path and "--config= is empty; name a file, such as --config=configs/full.py.",
        not files and any(place.is_dir() for place in places) and f"--config={path} is a folder; name a file in it.",
        not files and f"the config file --config={path} does not exist (looked from {pathlib.Path.cwd()}); {hint}",
    )
    return files[0]
