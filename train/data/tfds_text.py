"""The source `tfds:NAME`: text of tensorflow-datasets, read and prepared without TensorFlow; imports tfds lazily."""

import contextlib
import difflib
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from train.config import InputError, in_a_line, refuse

READ_AHEAD = 256  # examples; one at a time takes three times as long
# Of what goes wrong tensorflow-datasets logs a line of its own, and raises it as well.
logging.getLogger("absl").addFilter(lambda record: "tensorflow_datasets" not in record.pathname)
BRING_FILES = "bring the text as --config.data.source=file:PATH-or-glob"
REACH_SECONDS = 6  # a server that has not answered by then is taken as out of reach


def records(name: str) -> tuple[int, Iterator[tuple[str, bytes]]]:
    """How many examples NAME has, and (split/index, text) of each in a fixed random order.

    All of the data set's own splits count as one source. An example's text is the feature `text`, or else the only
    feature of type Text.

    Raises:
      InputError: an unknown name, a data set that is not prepared and cannot be downloaded or needs TensorFlow for it,
        one in another format than array_record, or one without a text feature.
    """
    builder = builder_of(name)
    feature, sources = _text_feature(builder, name), sources_of(builder, name)
    splits = sorted(sources)
    ends = np.cumsum([len(sources[split]) for split in splits])

    def texts() -> Iterator[tuple[str, bytes]]:
        order = np.random.default_rng(0).permutation(ends[-1])
        for chunk in np.split(order, range(READ_AHEAD, len(order), READ_AHEAD)):
            which = np.searchsorted(ends, chunk, side="right")
            for number, split in enumerate(splits):
                places = (chunk[which == number] - ends[number] + len(sources[split])).tolist()
                for place, example in zip(places, sources[split].__getitems__(places), strict=True):
                    text = example[feature]
                    yield f"{split}/{place}", text.encode() if isinstance(text, str) else bytes(text)

    return int(ends[-1]), texts()


def sources_of(builder, name: str) -> dict:
    """Each split of a data set, prepared first where it can be, as a random-access source.

    Raises:
      InputError: it is not prepared and cannot be, or in another format than array_record.
    """
    if not builder.is_prepared():
        builder = _prepared(name)
    try:
        return builder.as_data_source()
    except (NotImplementedError, ValueError) as error:
        why = f"tfds:{name} is prepared in {builder.data_path}, but not as array_record"
        raise InputError(f"{why}; {_elsewhere(name)}") from error


def builder_of(name: str):
    """The builder of a data set, prepared or not.

    Raises:
      InputError: an unknown name, or a builder that needs TensorFlow for a data set that is not prepared.
    """
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name)
    except tfds.core.DatasetNotFoundError as error:
        base = name.partition("/")[0].partition(":")[0]
        near = ", ".join(difflib.get_close_matches(base, tfds.list_builders(with_community_datasets=False), n=3))
        why = (
            f"tensorflow-datasets knows no data set {name!r}" + f" (nearest: {near})" * bool(near) + ", and none is "
            f"prepared in {_data_dir()}; check the name, or {BRING_FILES}."
        )
        if any(Path(tfds.__file__).parent.glob(f"*/{base}.py")):
            why = f"tfds:{name} is not prepared here, and its builder needs TensorFlow; {_elsewhere(name)}"
        raise InputError(why) from error
    except Exception as error:  # a malformed name, an unknown config or version
        why = f"tfds:{name} cannot be opened ({in_a_line(error)[:200]}); check the name, or {BRING_FILES}."
        raise InputError(why) from error


def _prepared(name: str):
    """The builder, after download and preparation as array_record, where it can do without TensorFlow."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, file_format="array_record")
    refuse(
        isinstance(builder, tfds.core.BeamBasedBuilder)
        and f"tfds:{name} is not prepared here, and its builder needs Apache Beam; {_elsewhere(name)}"
    )
    # The downloader's own retries take minutes before they give up.
    silent = ", ".join(_out_of_reach(list(builder.url_infos or ())))
    no_answer = f"tfds:{name} is not prepared in {_data_dir()} and cannot be downloaded: no answer from {silent}"
    refuse(silent and f"{no_answer}; {BRING_FILES}; or {_elsewhere(name)}")
    try:
        builder.download_and_prepare()
        return builder
    except ImportError as error:
        why = f"cannot be prepared here: its builder needs {error.name or 'TensorFlow'}"
        raise InputError(f"tfds:{name} {why}; {_elsewhere(name)}") from error
    except Exception as error:
        why = f"could not be downloaded and prepared ({in_a_line(error)[:200]}); {BRING_FILES}; or"
        raise InputError(f"tfds:{name} {why} {_elsewhere(name)}") from error


def _out_of_reach(urls: list[str]) -> list[str]:
    """The hosts of `urls` that give no answer, or a server's fault, within REACH_SECONDS."""
    import requests

    hosts, answered = {urlsplit(url).netloc: url for url in urls if url.startswith("http")}, set()

    def ask(host: str) -> None:
        with contextlib.suppress(requests.RequestException):
            if requests.head(hosts[host], timeout=REACH_SECONDS).status_code < 500:  # the downloader retries those
                answered.add(host)

    # Daemons: the look-up of a name may hang for longer than any time-out that one can set.
    askers = [threading.Thread(target=ask, args=(host,), daemon=True) for host in hosts]
    end = time.monotonic() + REACH_SECONDS
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(max(0.0, end - time.monotonic()))
    return sorted(set(hosts) - answered)


def _text_feature(builder, name: str) -> str:
    import tensorflow_datasets as tfds

    features = dict(builder.info.features.items()) if hasattr(builder.info.features, "items") else {}
    texts = [key for key, feature in features.items() if isinstance(feature, tfds.features.Text)]
    refuse(
        "text" not in texts
        and len(texts) != 1
        and f"tfds:{name} has no feature `text` and {len(texts)} features of type Text ({', '.join(texts) or 'none'}), "
        "so which one to read is not clear; write the text into files and use --config.data.source=file:PATH-or-glob."
    )
    return "text" if "text" in texts else texts[0]


def _elsewhere(name: str) -> str:
    return (
        "prepare it once on a machine with TensorFlow and a network: pip install tensorflow tensorflow-datasets "
        f"apache-beam && tfds build {name} --file_format=array_record --data_dir=DIR; then copy DIR here and set "
        "TFDS_DATA_DIR=DIR."
    )


def _data_dir() -> str:
    import tensorflow_datasets as tfds

    return str(tfds.core.constants.DATA_DIR)
