from typing import Dict, List

from allennlp.common import JsonDict
from allennlp.data import Instance, Token

from spigot_allennlp.data.text_files import shorten
from spigot_allennlp.predictors.text_predictor import TextPredictor

# What JSON may give for each of its tokens, by the name that indexers have for it.
_FEATURES = {"lemma_": "lemmas", "pos_": "pos_tags", "tag_": "tags"}


class SentencePredictor(TextPredictor):
    """
    What the predictors for single sentences share. They take plain text, one sentence a line; JSON lines,
    `{"sentence": "..."}` or `{"tokens": ["...", ...]}`; or a file in the reader's own format: see `TextPredictor`, also
    for the parameters. Beside `tokens` there may be lists of `lemmas`, `pos_tags` (`UPOS` in CoNLL-U) and `tags`
    (`XPOS`), those that an indexer of the dataset reader takes and no tagger of its own predicts.
    """

    input_forms = 'plain text, {"sentence": "..."} or {"tokens": ["...", ...]}'

    def predict(self, sentence: str) -> JsonDict:
        """
        # Parameters

        sentence : `str`
            Text that is not tokenized.
        """
        return self.predict_json({"sentence": sentence})

    def predict_tokenized(self, words: List[str]) -> JsonDict:
        return self.predict_json({"tokens": words})

    def _load_text(self, line: str) -> JsonDict:
        return {"sentence": line}

    def _features(self) -> Dict[str, str]:
        """The keys of JSON for what indexers know of a token beside its text, with their names for it."""
        if getattr(self._dataset_reader, "_tagger", None) is not None:
            return {}
        indexers = {
            **getattr(self._dataset_reader, "_token_indexers", {}),
            **(getattr(self._dataset_reader, "_parser_token_indexers", None) or {}),
        }
        names = {getattr(indexer, "_feature_name", None) for indexer in indexers.values()}
        return {key: name for name, key in _FEATURES.items() if name in names}

    def _json_to_instance(self, json_dict: JsonDict) -> Instance:
        return self._dataset_reader.text_to_instance(self._tokens_of(json_dict))

    def _tokens_of(self, json_dict: JsonDict) -> List[Token]:
        words = json_dict.get("tokens")
        tokens = self._tokens(json_dict.get("sentence"), words)
        if tokens is None:
            raise self._refuse(json_dict)
        features = self._features()
        self._refuse_keys(json_dict, "sentence", "tokens", *features)
        if words is not None:
            self._check_words(json_dict)
        for key, name in features.items():
            if key in json_dict:
                self._set_feature(tokens, name, key, json_dict)
        return tokens

    def _check_words(self, json_dict: JsonDict) -> None:
        for number, word in enumerate(json_dict["tokens"], 1):
            if word != word.strip() or any(blank in word for blank in "\t\n\r\f\v"):
                raise self._refuse(
                    json_dict,
                    f": token {number} is {shorten(word)}; a token must not begin or end with a blank or contain a tab "
                    "or a line break",
                )

    def _set_feature(self, tokens: List[Token], name: str, key: str, json_dict: JsonDict) -> None:
        values = json_dict[key]
        if (
            "tokens" not in json_dict
            or not isinstance(values, list)
            or len(values) != len(tokens)
            or not all(isinstance(value, str) and value for value in values)
        ):
            raise self._refuse(
                json_dict, f": '{key}' is {shorten(values)}; valid: a list of as many strings as there are 'tokens'"
            )
        for token, value in zip(tokens, values):
            setattr(token, name, value)
