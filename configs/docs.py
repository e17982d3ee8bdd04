"""Real English (language reference and docstrings of the installed numerical stack) on the default grid.

Command: python main.py --config=configs/docs.py
Time and result: those of configs/default.py, which it equals today.
"""

from configs import default


def get_config():
    config = default.get_config()
    config.data.update(source="docs")
    return config
