"""Byte-level BPE (Sennrich et al. 2016; on bytes, Radford et al. 2019) by the library tokenizers; imports it lazily.

Every token is a run of bytes, so any text comes back exactly and a token has a length in bytes.
"""

from collections.abc import Iterable

import numpy as np

DEFAULT_VOCAB_SIZE = 1_024


def trained(texts: Iterable[bytes], vocab_size: int) -> str:
    """A tokenizer of `vocab_size` - 1 tokens at most (BOS, the last id, is not one of its own), as JSON."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator((text.decode() for text in texts), trainer)
    return tokenizer.to_str()


class Bpe:
    """A trained tokenizer."""

    def __init__(self, tokenizer: str):
        """Args:
        tokenizer: what `trained` returned.
        """
        import tokenizers

        self._tokenizer = tokenizers.Tokenizer.from_str(tokenizer)
        words = self._tokenizer.get_vocab()
        # ByteLevel writes each byte as one character.
        self._lengths = np.zeros(len(words), np.int64)
        self._lengths[list(words.values())] = [len(word) for word in words]

    def encode(self, texts: list[bytes]) -> list[np.ndarray]:
        """Token ids of each text, uint16."""
        encodings = self._tokenizer.encode_batch([text.decode() for text in texts])
        return [np.array(each.ids, np.uint16) for each in encodings]

    def decode(self, ids: np.ndarray) -> str:
        return self._tokenizer.decode(ids.tolist())

    def ends(self, ids: np.ndarray) -> np.ndarray:
        """The byte of the text at which each token ends, int64."""
        return np.cumsum(self._lengths[ids])
