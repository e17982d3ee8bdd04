"""The data section of a config, for tests that need no study."""

import dataclasses

from configs import default
from train.config import DataConfig, freeze

DEFAULT = freeze(default.get_config().to_dict()).data


def data_config(**fields) -> DataConfig:
    """configs/default.py's, but for `fields`."""
    return dataclasses.replace(DEFAULT, **fields)
