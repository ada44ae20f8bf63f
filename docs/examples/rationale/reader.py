import json
from typing import Dict, Iterator, List, Optional

from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader, Field, Instance, Token, TokenIndexer
from allennlp.data.fields import LabelField, MetadataField, TextField
from allennlp.data.token_indexers import SingleIdTokenIndexer


@DatasetReader.register("reviews")
class ReviewDatasetReader(DatasetReader):
    """
    Reads JSON lines, `{"text": "an endless bore", "label": "negative"}`, of text whose words are separated by blanks.
    The fields: `tokens`, `metadata` (`"words"`) and, where it is known, `label`.

    # Parameters

    token_indexers : `Dict[str, TokenIndexer]`, optional (default = `{"tokens": SingleIdTokenIndexer()}`)
    """

    def __init__(self, token_indexers: Optional[Dict[str, TokenIndexer]] = None, **kwargs) -> None:
        super().__init__(**kwargs)
        self._token_indexers = token_indexers or {"tokens": SingleIdTokenIndexer()}

    def _read(self, file_path: str) -> Iterator[Instance]:
        with open(file_path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    review = json.loads(line)
                    text, label = review["text"], review["label"]
                except (ValueError, KeyError, TypeError):
                    raise ConfigurationError(
                        f"{file_path}, line {number}: no JSON object with the keys text and label: {line.strip()!r}"
                    ) from None
                yield self.text_to_instance([Token(word) for word in text.split()], label)

    def text_to_instance(self, tokens: List[Token], label: Optional[str] = None) -> Instance:
        if not tokens:
            raise ConfigurationError("a review needs at least one word")
        fields: Dict[str, Field] = {
            "tokens": TextField(tokens, self._token_indexers),
            "metadata": MetadataField({"words": [token.text for token in tokens]}),
        }
        if label is not None:
            fields["label"] = LabelField(label)
        return Instance(fields)
