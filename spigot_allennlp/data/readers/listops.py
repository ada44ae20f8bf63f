import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Dict, List, NamedTuple, Optional, Union

import numpy as np
from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader, Instance, Token, TokenIndexer
from allennlp.data.fields import LabelField, MetadataField, SequenceLabelField, TextField
from allennlp.data.token_indexers import SingleIdTokenIndexer

from spigot_allennlp.checks import at_least, at_least_one, refuse_unknown_keys
from spigot_allennlp.data.generated import SPLITS, check_split, random_stream
from spigot_allennlp.data.sentence import Sentence
from spigot_allennlp.data.text_files import shorten

OPERATORS: Dict[str, Callable[[Sequence[int]], int]] = {
    "[MAX": max,
    "[MIN": min,
    # Of an even number of arguments, the mean of the middle two, rounded down.
    "[MED": lambda values: int(statistics.median(values)),
    "[SM": lambda values: sum(values) % 10,
}
_END = "]"
_DIGITS = [str(digit) for digit in range(10)]

# How often an argument is an operation, beside the one that takes an expression to its depth.
_NESTED = 0.25


class Evaluated(NamedTuple):
    """
    # Parameters

    heads : `List[int]`
        The head of each token, from 1; 0 for the outermost operator.
    value : `int`
        Value of the expression, 0 to 9.
    """

    heads: List[int]
    value: int


def evaluate(tokens: Sequence[str]) -> Evaluated:
    """
    # Parameters

    tokens : `Sequence[str]`
        An expression such as `[MAX 2 [SM 4 7 ] 0 ]`.

    # Returns

    `Evaluated`
        Its value, and its tree: arguments and `]` attach to their operator.

    # Errors

    `ConfigurationError` for an unknown token, brackets that do not match, and an operator without arguments.
    """

    def refuse(number: int, problem: str) -> ConfigurationError:
        return ConfigurationError(
            f"token {number} of {shorten(' '.join(tokens))}: {problem}; valid: an expression such as "
            "'[MAX 2 [SM 4 7 ] 0 ]'"
        )

    heads: List[int] = []
    # Each operator that is open, with the values of its arguments so far; first, what is outermost.
    open_at: List[int] = [0]
    values: List[List[int]] = [[]]
    for number, token in enumerate(tokens, 1):
        if len(open_at) == 1 and values[0]:
            raise refuse(number, f"{shorten(token)} follows after the end of the expression")
        heads.append(open_at[-1])
        if token in OPERATORS:
            open_at.append(number)
            values.append([])
        elif token in _DIGITS:
            values[-1].append(int(token))
        elif token != _END:
            known = ", ".join([*OPERATORS, _END])
            raise refuse(number, f"unknown token {shorten(token)}, not among {known} and the digits")
        elif len(open_at) == 1:
            raise refuse(number, "']' without an operator")
        else:
            arguments = values.pop()
            operator = tokens[open_at.pop() - 1]
            if not arguments:
                raise refuse(number, f"{operator} has no arguments")
            values[-1].append(OPERATORS[operator](arguments))
    if len(open_at) > 1 or not values[0]:
        raise refuse(len(tokens), "the expression ends too early" if tokens else "there is no token")
    return Evaluated(heads, values[0][0])


@DatasetReader.register("listops")
class ListopsDatasetReader(DatasetReader):
    """
    Makes nested lists of digits with the operators maximum, minimum, median and sum modulo 10 (Nangia and Bowman 2018):
    `[MAX 2 [SM 4 7 ] 0 ]` comes to 2. The parse that evaluates an expression is known, and it is a dependency tree:
    arguments and closing brackets attach to their operator. Depths are uniform. Nothing is read: the "file path" names
    the split, `"train"`, `"validation"` or `"test"`. The seed decides everything, on every machine alike. The fields:

    - `tokens`: `TextField` of the expression.
    - `head_indices`: `SequenceLabelField` of integers, the gold head of each token, 0 for ROOT.
    - `label`: `LabelField`, the value, from 0 to 9.
    - `metadata`: `"words"`, `"sentence_id"`, and the `Sentence` with its tree as `"graph"`.

    # Parameters

    train_size, validation_size, test_size : `int`, optional (default = `20000`, `1000`, `1000`)
        Numbers of expressions.
    max_depth : `int`, optional (default = `5`)
        Largest number of operators that contain each other.
    max_arguments : `int`, optional (default = `4`)
        Largest number of arguments of an operator; the smallest is 2.
    max_length : `int`, optional (default = `40`)
        Largest number of tokens.
    seed : `int`, optional (default = `0`)
        Seed of the expressions.
    token_indexers : `Dict[str, TokenIndexer]`, optional (default = `{"tokens": SingleIdTokenIndexer()}`)
        Indexers of the tokens.

    # Errors

    `ConfigurationError` for values out of range, another split, and text that is not an expression.
    """

    def __init__(
        self,
        train_size: int = 20000,
        validation_size: int = 1000,
        test_size: int = 1000,
        max_depth: int = 5,
        max_arguments: int = 4,
        max_length: int = 40,
        seed: int = 0,
        token_indexers: Optional[Dict[str, TokenIndexer]] = None,
        **kwargs,
    ) -> None:
        refuse_unknown_keys(self, kwargs)
        super().__init__(manual_distributed_sharding=True, manual_multiprocess_sharding=True, **kwargs)
        self._sizes = dict(zip(SPLITS, (train_size, validation_size, test_size)))
        for split, size in self._sizes.items():
            at_least_one(f"{split}_size", size)
        self._max_depth = at_least_one("max_depth", max_depth)
        self._max_arguments = at_least(2, "max_arguments", max_arguments)
        self._max_length = at_least(_shortest(max_depth), "max_length", max_length)
        self._seed = at_least(0, "seed", seed)
        self._token_indexers = token_indexers or {"tokens": SingleIdTokenIndexer()}

    def _read(self, file_path: str) -> Iterator[Instance]:
        for tokens in self.shard_iterable(self.generate(str(file_path))):
            yield self.text_to_instance(tokens)

    def generate(self, split: str) -> Iterator[List[str]]:
        """
        # Returns

        `Iterator[List[str]]`
            The expressions of `"train"`, `"validation"` or `"test"`.

        # Errors

        `ConfigurationError` for another split.
        """
        generator = random_stream(self._seed, SPLITS.index(check_split("listops", split)))
        for _ in range(self._sizes[split]):
            depth = int(generator.integers(1, self._max_depth + 1))
            yield self._expression(generator, depth, self._max_length)

    def _expression(self, generator: np.random.Generator, depth: int, longest: int) -> List[str]:
        """An expression of that depth, and of no more than so many tokens."""
        if depth == 0:
            return [_DIGITS[generator.integers(10)]]
        # Operator, bracket, and an argument that takes the expression to its depth, are needed.
        spare = longest - 2 - _shortest(depth - 1)
        num_arguments = int(generator.integers(2, min(self._max_arguments, 1 + spare) + 1))
        spare -= num_arguments - 1
        deepest = int(generator.integers(num_arguments))
        arguments: List[List[str]] = []
        for number in range(num_arguments):
            inside = depth - 1
            if number != deepest:
                inside = int(generator.integers(depth)) if generator.random() < _NESTED else 0
                while _shortest(inside) - 1 > spare:
                    inside -= 1
            reserved = _shortest(inside) if number == deepest else 1
            argument = self._expression(generator, inside, reserved + spare)
            spare -= len(argument) - reserved
            arguments.append(argument)
        operator = list(OPERATORS)[generator.integers(len(OPERATORS))]
        return [operator, *(token for argument in arguments for token in argument), _END]

    def tokenize(self, text: str) -> List[Token]:
        """Splits text as the data are split: at spaces, and around brackets."""
        return [Token(token) for token in text.replace("[", " [").replace("]", " ] ").split()]

    def text_to_instance(self, tokens: Sequence[Union[str, Token]]) -> Instance:
        """
        # Parameters

        tokens : `Sequence[Union[str, Token]]`
            An expression. Its tree and its value follow from it.
        """
        words = [token if isinstance(token, str) else token.text for token in tokens]
        heads, value = evaluate(words)
        text = TextField([Token(word) for word in words])
        sentence = Sentence(words=words, heads=heads)
        return Instance(
            {
                "tokens": text,
                "head_indices": SequenceLabelField(heads, text, label_namespace="head_index_tags"),
                "label": LabelField(value, skip_indexing=True),
                "metadata": MetadataField({"words": words, "sentence_id": None, "graph": sentence}),
            }
        )

    def apply_token_indexers(self, instance: Instance) -> None:
        instance["tokens"].token_indexers = self._token_indexers


def _shortest(depth: int) -> int:
    """The number of tokens of the shortest expression of a depth: two arguments for each operator."""
    return 3 * depth + 1
