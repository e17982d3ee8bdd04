"""Real English (language reference and docstrings of the installed numerical stack) on the default grid."""

from configs import default


def get_config():
    config = default.get_config()
    config.data.source = "docs"
    return config
