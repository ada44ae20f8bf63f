"""Generated nested lists: what they come to and how they are parsed, against Python itself; and what is refused."""

import hashlib
import statistics
from typing import Any, Dict, List

import pytest
from allennlp.common.checks import ConfigurationError
from allennlp.data import Token

from spigot_allennlp.data import ListopsDatasetReader
from spigot_allennlp.data.readers.listops import evaluate

FUNCTIONS = {
    "MAX": lambda *values: max(values),
    "MIN": lambda *values: min(values),
    "MED": lambda *values: int(statistics.median(values)),
    "SM": lambda *values: sum(values) % 10,
}


def by_python(tokens: List[str]) -> int:
    """`[MAX 2 [SM 4 7 ] 0 ]` as `MAX(2,SM(4,7,),0,)`."""
    text = "".join(f"{token[1:]}(" if token[0] == "[" else ")," if token == "]" else f"{token}," for token in tokens)
    return eval(text.rstrip(","), {"__builtins__": {}}, FUNCTIONS)


def depth(tokens: List[str]) -> int:
    deepest = current = 0
    for token in tokens:
        current += token[0] == "["
        current -= token == "]"
        deepest = max(deepest, current)
    return deepest


def slow_heads(tokens: List[str]) -> List[int]:
    """Of each token the nearest operator before it that is not closed yet."""
    heads = []
    for number in range(len(tokens)):
        closed = 0
        for before in reversed(range(number)):
            closed += tokens[before] == "]"
            if tokens[before][0] == "[":
                if not closed:
                    heads.append(before + 1)
                    break
                closed -= 1
        else:
            heads.append(0)
    return heads


@pytest.mark.parametrize(
    "keys", [{}, {"max_depth": 1}, {"max_depth": 3, "max_length": 10}, {"max_arguments": 2}, {"max_length": 100}]
)
def test_expressions(keys: Dict[str, Any]):
    reader = ListopsDatasetReader(train_size=300, **keys)
    expressions = list(reader.generate("train"))
    assert len(expressions) == 300
    assert {depth(tokens) for tokens in expressions} == set(range(1, keys.get("max_depth", 5) + 1))
    assert max(map(len, expressions)) <= keys.get("max_length", 40)
    arguments = set()
    for tokens in expressions:
        heads, value = evaluate(tokens)
        assert heads == slow_heads(tokens)
        assert value == by_python(tokens)
        for number, token in enumerate(tokens, 1):
            if token[0] == "[":
                arguments.add(heads.count(number) - 1)
            else:
                assert token == "]" or number not in heads
    assert {2} <= arguments <= set(range(2, keys.get("max_arguments", 4) + 1))
    assert {token for tokens in expressions for token in tokens} == {*"0123456789]", "[MAX", "[MIN", "[MED", "[SM"}


def test_the_seed_decides_everything():
    def digest(split: str, **keys: Any) -> str:
        lines = "\n".join(" ".join(tokens) for tokens in ListopsDatasetReader(**keys).generate(split))
        return hashlib.sha256(lines.encode()).hexdigest()

    # The same on every machine.
    assert digest("validation") == "d774b2e5bc98d592243de0285c51f2410b96018eed8b711bb45b474f764327b0"
    assert digest("validation") == digest("validation", train_size=7)
    assert len({digest("validation"), digest("test"), digest("validation", seed=1)}) == 3


def test_instances():
    reader = ListopsDatasetReader(validation_size=5)
    instances = list(reader.read("validation"))
    assert len(instances) == 5
    instance = reader.text_to_instance(reader.tokenize("[MAX 2[SM 4 7]0]"))
    words = ["[MAX", "2", "[SM", "4", "7", "]", "0", "]"]
    assert [token.text for token in instance["tokens"]] == words
    assert instance["head_indices"].labels == [0, 1, 1, 3, 3, 3, 1, 1]
    assert instance["label"].label == 2
    assert instance["metadata"]["graph"].heads == [0, 1, 1, 3, 3, 3, 1, 1]
    assert evaluate(["7"]) == ([0], 7)


@pytest.mark.parametrize(
    "text, message",
    [
        ("[MAX 2 3", "token 3 of .*: the expression ends too early; valid: an expression such as"),
        ("[MAX 2 3 ] 4", "token 5 of .*: '4' follows after the end of the expression"),
        ("2 ]", "token 2 of .*: '\\]' follows after the end"),
        ("] 2", "token 1 of .*: '\\]' without an operator"),
        ("[MAX ]", "token 2 of .*: \\[MAX has no arguments"),
        (
            "[MAX 12 3 ]",
            "token 2 of .*: unknown token '12', not among .*\\[SM, \\] and the digits",
        ),
        ("", "there is no token"),
    ],
)
def test_what_is_no_expression(text: str, message: str):
    with pytest.raises(ConfigurationError, match=message):
        ListopsDatasetReader().text_to_instance([Token(token) for token in text.split()])


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"max_depth": 0}, "max_depth is 0"),
        ({"max_arguments": 1}, "max_arguments is 1"),
        ({"max_length": 15}, "max_length is 15"),
        ({"train_size": 0}, "train_size is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_values_out_of_range(keys: Dict[str, Any], message: str):
    with pytest.raises(ConfigurationError, match=message):
        ListopsDatasetReader(**keys)


def test_another_split():
    with pytest.raises(ConfigurationError, match="path of listops is 'dev', which is not a split; valid: 'train'"):
        list(ListopsDatasetReader().read("dev"))
