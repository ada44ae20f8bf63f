"""
What the readers share that read no file, but generate their data from a seed.
"""

import numpy as np
from allennlp.common.checks import ConfigurationError

SPLITS = ("train", "validation", "test")


def check_split(reader: str, split: str) -> str:
    """
    # Parameters

    reader : `str`
        The name of the reader.
    split : `str`
        Name of the split, which stands in place of a path.

    # Returns

    `str`
        The split.

    # Errors

    `ConfigurationError` for a path that is not the name of a split.
    """
    if split not in SPLITS:
        raise ConfigurationError(
            f"the data path of {reader} is '{split}', which is not a split; valid: {', '.join(map(repr, SPLITS))}"
        )
    return split


def random_stream(seed: int, stream: int) -> np.random.Generator:
    """Random numbers that are independent of the other streams of the same seed, and of how much of them is used."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(stream,))))
