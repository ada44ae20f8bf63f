"""
Faults of AllenNLP's own commands.
"""

import functools
import logging
import sys
from types import FunctionType, SimpleNamespace
from typing import Any, Callable, Dict, Iterator
from unittest import mock

from allennlp.commands import build_vocab, diff, predict
from allennlp.common import Params, Tqdm
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.patches.replacement import replace


def apply() -> None:
    """
    Apply every patch of this file. Calling it again does nothing.
    """
    # It tells of every plugin, before a command could say what it wants to hear.
    logging.getLogger("allennlp.common.plugins").setLevel(logging.WARNING)
    replace(diff, "checkpoint_diff", _differences_of_counters)
    _replace_in_its_parser(build_vocab.build_vocab_from_args, _overrides_of_build_vocab)
    replace(predict, "_get_predictor", _silence)
    replace(predict._PredictManager, "run", _progress_of_silent_predictions)
    replace(predict._PredictManager, "_get_json_data", _inputs_of_predictors)


def _differences_of_counters(original: Callable) -> Callable:
    """
    `allennlp diff` takes mean squares, which torch has for floating-point numbers only; counters, of batches for
    example, are integers.
    """

    def checkpoint_diff(state_dict_a: Dict[str, Any], state_dict_b: Dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        floats = (
            {name: value if value.is_floating_point() else value.double() for name, value in state_dict.items()}
            for state_dict in (state_dict_a, state_dict_b)
        )
        return original(*floats, *args, **kwargs)

    return checkpoint_diff


def _replace_in_its_parser(function: Any, make: Callable[[Callable], Callable]) -> None:
    """
    The function of a subcommand is in the hands of the parser, which is made before plugins are imported: its code is
    replaced.
    """
    if not hasattr(function, "replacement"):
        original = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
        function.replacement = make(original)
        function.__code__ = _call_the_replacement.__code__


def _call_the_replacement(args: Any) -> None:
    # The name is one of AllenNLP's module, whose function gets this code.
    build_vocab_from_args.replacement(args)  # noqa: F821


def _overrides_of_build_vocab(original: Callable) -> Callable:
    """
    `allennlp build-vocab` accepts `-o` and forgets it.
    """

    def build_vocab_from_args(args: Any) -> None:
        read = functools.partial(Params.from_file, params_overrides=args.overrides)
        with mock.patch.object(build_vocab, "Params", SimpleNamespace(from_file=read)):
            original(args)

    return build_vocab_from_args


def _silence(original: Callable) -> Callable:
    """`allennlp predict --silent` is silent about predictions, but logs a hundred lines of what it loads."""

    def get_predictor(args: Any) -> Any:
        if args.silent:
            logging.disable(logging.INFO)
        try:
            return original(args)
        except BaseException:
            logging.disable(logging.NOTSET)
            raise

    return get_predictor


def _progress_of_silent_predictions(original: Callable) -> Callable:
    """
    `allennlp predict --silent` shows nothing for as long as it takes: on a terminal, now a bar. (Otherwise predictions
    are printed.)
    """

    def run(self: Any) -> None:
        if not self._print_to_console:
            for name in ("_get_json_data", "_get_instance_data"):
                inputs = getattr(self, name)
                bar = functools.partial(
                    Tqdm.tqdm, desc="predicting", unit=" inputs", delay=2, disable=not sys.stderr.isatty()
                )
                setattr(self, name, lambda inputs=inputs, bar=bar: bar(inputs()))
        try:
            original(self)
        finally:
            logging.disable(logging.NOTSET)

    return run


def _inputs_of_predictors(original: Callable) -> Callable:
    """
    `allennlp predict` hands lines to a predictor one by one, so that none of its errors knows a line's number. Ours
    read the input themselves. For others: of input in another encoding it is said that it is the input.
    """

    def _get_json_data(self: Any) -> Iterator[Any]:
        read_inputs = getattr(self._predictor, "read_inputs", None)
        try:
            yield from original(self) if read_inputs is None else read_inputs(self._input_file)
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{self._input_file}: the input is not valid UTF-8 ({error})") from None

    return _get_json_data
