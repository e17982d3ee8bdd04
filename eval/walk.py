"""The modules of a package, found where they lie: a measurement, a claim or a section is a file and in no list."""

import importlib
import pkgutil


def modules(package) -> list:
    """Those of `package` and of the packages in it, by path."""
    files = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    return [importlib.import_module(each.name) for each in files if not each.ispkg]
