import os
import re
from typing import Iterable, List, Sequence, Union

from allennlp.common.checks import ConfigurationError
from allennlp.models import load_archive
from allennlp.predictors import Predictor

from spigot_allennlp.checks import at_least_one
from spigot_allennlp.data import Sentence
from spigot_allennlp.predictors import DependencyGraphPredictor


class Parser:
    """
    A trained parser as a function from text to sentences with trees and graphs:

        parser = spigot_allennlp.load("en_ewt")
        for sentence in parser("Some text. It may have several sentences."):
            print(sentence.words, sentence.heads, sentence.deprels, sentence.arcs)

    # Parameters

    predictor : `DependencyGraphPredictor`
        Predictor of the trained parser.
    batch_size : `int`, optional (default = `32`)
        Number of sentences that are parsed together.
    """

    def __init__(self, predictor: DependencyGraphPredictor, batch_size: int = 32) -> None:
        self.predictor = predictor
        self.batch_size = at_least_one("batch_size", batch_size)

    def __call__(self, text: str) -> List[Sentence]:
        """
        # Parameters

        text : `str`
            One or more sentences, which are split and tokenized by spaCy's rules.
        """
        # A blank line ends a sentence, too.
        paragraphs = re.split(r"\n\s*\n", text)
        return self._parse([sentence for paragraph in paragraphs for sentence in self.predictor.split(paragraph)])

    def parse_words(self, sentences: Iterable[Sequence[str]]) -> List[Sentence]:
        """
        # Parameters

        sentences : `Iterable[Sequence[str]]`
            The words of each sentence.

        # Errors

        `ConfigurationError` for a sentence without words and for an empty word.
        """
        return self._parse([Sentence.from_tokens(_checked(words)) for words in sentences])

    def _parse(self, sentences: List[Sentence]) -> List[Sentence]:
        # Batches of sentences of about the same length hold little padding.
        order = sorted(range(len(sentences)), key=lambda number: len(sentences[number]))
        parsed = list(sentences)
        for start in range(0, len(order), self.batch_size):
            numbers = order[start : start + self.batch_size]
            for number, sentence in zip(numbers, self.predictor.parse([sentences[number] for number in numbers])):
                parsed[number] = sentence
        return parsed


def _checked(words: Sequence[str]) -> List[str]:
    if isinstance(words, str) or not words or not all(isinstance(word, str) and word for word in words):
        raise ConfigurationError(f"a sentence is {str(words)[:100]!r}; valid: a list of one or more non-empty words")
    return list(words)


def load(archive_file: Union[str, os.PathLike], batch_size: int = 32, cuda_device: int = -1) -> Parser:
    """
    # Parameters

    archive_file : `Union[str, os.PathLike]`
        The name of a parser that ships with the package (`"en_ewt"`), or the path of an archive that was trained with
        it.
    batch_size : `int`, optional (default = `32`)
        Number of sentences that are parsed together.
    cuda_device : `int`, optional (default = `-1`)
        The GPU to run on; -1 is the CPU.

    # Errors

    `ConfigurationError` for an unknown name, with the known ones; for an archive that is damaged, or that this version
    cannot load; and for a model that is not a parser.
    """
    predictor = Predictor.from_archive(load_archive(archive_file, cuda_device=cuda_device))
    if not isinstance(predictor, DependencyGraphPredictor):
        raise ConfigurationError(
            f"{archive_file} holds a model of type {type(predictor._model).__name__}; valid: a parser, that is, a "
            "'syntactic_parser' or a 'syntactic_then_semantic'"
        )
    return Parser(predictor, batch_size)
