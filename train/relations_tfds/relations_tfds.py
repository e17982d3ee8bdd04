"""The relations languages as a TFDS builder, prepared as array_record without TensorFlow.

    from train.relations_tfds.relations_tfds import Relations, config_of
    builder = Relations(config=config_of(DataConfig(relations="6"), {"train": 10_000, "test": 1_000}),
                        file_format="array_record", data_dir=FOLDER)
    builder.download_and_prepare()
    builder.as_data_source()["train"][0]["tokens"]

A record of TFDS keeps 32 bits of a float, so log-probabilities are kept as the int64 of their bits:
`element["log_p"].view(np.float64)` gives them back exactly.

In a package of its own, since TFDS walks the folder of a builder.
"""

import dataclasses

import numpy as np
import tensorflow_datasets as tfds

from train.config import DataConfig
from train.relations import language, parse
from train.relations.source import Source

LOG_P = ("log_p", "question_log_p")


@dataclasses.dataclass(kw_only=True)
class RelationsConfig(tfds.core.BuilderConfig):
    """A language and how many documents of each split; its name is the fingerprint of the language."""

    data: DataConfig
    documents: tuple[tuple[str, int], ...]


def config_of(data: DataConfig, documents: dict[str, int]) -> RelationsConfig:
    """The configuration of `documents` of each split, numbered one split after another.

    Raises:
      InputError: a language that cannot be (train.relations.parse).
    """
    name = language.fingerprint(parse.language(data), data.language_seed)[:16]
    sizes = "_".join(f"{split}{count}" for split, count in documents.items())
    return RelationsConfig(name=f"{name}_{sizes}", data=data, documents=tuple(documents.items()))


class Relations(tfds.core.GeneratorBasedBuilder):
    """Synthetic documents with planted relations: tokens, their exact log-probabilities, and gold links."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        length = self.builder_config.data.document_tokens
        features = {
            "tokens": tfds.features.Tensor(shape=(length,), dtype=np.uint16),
            "log_p": tfds.features.Tensor(shape=(length,), dtype=np.int64),
            "links": tfds.features.Tensor(shape=(None, 3), dtype=np.int32),
            "questions": tfds.features.Tensor(shape=(None, 3), dtype=np.int32),
            "question_log_p": tfds.features.Tensor(shape=(None,), dtype=np.int64),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        first, found = 0, {}
        for split, count in self.builder_config.documents:
            found[split] = self._generate_examples(first, count)
            first += count
        return found

    def _generate_examples(self, first: int, count: int):
        data = self.builder_config.data
        source = Source(parse.language(data), data.language_seed, count, first)
        for index in range(count):
            element = source[index]
            yield first + index, element | {name: element[name].view(np.int64) for name in LOG_P}
