import json
from typing import Any, List

from allennlp.common import JsonDict
from allennlp.common.checks import ConfigurationError
from allennlp.common.util import sanitize
from allennlp.data import DatasetReader, Instance, Token, Tokenizer
from allennlp.models import Model
from allennlp.predictors import Predictor

from spigot_allennlp.dataset_readers import SDP_HEADER, DependencyGraph, write_conllu, write_sdp
from spigot_allennlp.predictors.offline_tokenizer import OfflineSpacyTokenizer
from spigot_allennlp.structures import Tree
from spigot_allennlp.unknown_keys import refuse_unknown_keys

_FORMATS = ("json", "sdp", "conllu")


@Predictor.register("dependency_graph")
class DependencyGraphPredictor(Predictor):
    """
    Parses plain text, one sentence a line; JSON lines, `{"sentence": "..."}` or `{"tokens": ["...", ...]}`; or, with
    `allennlp predict --use-dataset-reader`, a file in the reader's own format. Blank lines are skipped.

    # Parameters

    model : `Model`
    dataset_reader : `DatasetReader`
    tokenizer : `Tokenizer`, optional (default = `offline_spacy`)
        For text that is not tokenised.
    output_format : `str`, optional (default = `"json"`)
        `"json"` (one object a line), `"sdp"` or `"conllu"`; on the command line:
        `--predictor-args '{"output_format": "conllu"}'`. The heads of a structure that may be no tree (of single-rooted
        ones in the case of CoNLL-U, which knows no others) have no place there, and stand in JSON only.

    # Errors

    `ConfigurationError` for another `output_format` and for input that is none of the above.
    """

    def __init__(
        self,
        model: Model,
        dataset_reader: DatasetReader,
        tokenizer: Tokenizer = None,
        output_format: str = "json",
        **kwargs: Any,
    ) -> None:
        refuse_unknown_keys(self, kwargs)
        super().__init__(model, dataset_reader, **kwargs)
        if output_format not in _FORMATS:
            raise ConfigurationError(f"output_format is '{output_format}'; valid: {', '.join(map(repr, _FORMATS))}")
        self._tokenizer = tokenizer or OfflineSpacyTokenizer()
        self._output_format = output_format
        structure = getattr(model, "structure", None)
        self._writes_heads = isinstance(structure, Tree) and (structure.single_root or output_format == "sdp")
        self._lines_loaded = 0
        self._lines_dumped = 0

    def predict(self, sentence: str) -> JsonDict:
        """
        # Parameters

        sentence : `str`
            Not tokenised.
        """
        return self.predict_json({"sentence": sentence})

    def predict_tokenized(self, words: List[str]) -> JsonDict:
        return self.predict_json({"tokens": words})

    def load_line(self, line: str) -> JsonDict:
        self._lines_loaded += 1
        line = line.strip()
        if not line.startswith("{"):
            return {"sentence": line}
        try:
            return json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigurationError(
                f"input line {self._lines_loaded} (not counting blank ones) begins with '{{' but is not JSON: {error}. "
                'Valid: plain text, {"sentence": "..."} or {"tokens": ["...", ...]}'
            ) from None

    def _json_to_instance(self, json_dict: JsonDict) -> Instance:
        sentence, words = json_dict.get("sentence"), json_dict.get("tokens")
        if isinstance(sentence, str) and words is None:
            tokens = self._tokenizer.tokenize(sentence)
        elif isinstance(words, list) and all(isinstance(word, str) and word for word in words):
            tokens = [Token(word) for word in words]
        else:
            tokens = []
        if not tokens:
            raise ConfigurationError(
                f"nothing to parse in {json.dumps(json_dict)[:200]}. Valid: plain text, "
                '{"sentence": "..."} or {"tokens": ["...", ...]}, with at least one word'
            )
        return self._dataset_reader.text_to_instance(tokens)

    def predict_instance(self, instance: Instance) -> JsonDict:
        return self.predict_batch_instance([instance])[0]

    def predict_batch_instance(self, instances: List[Instance]) -> List[JsonDict]:
        for instance in instances:
            self._dataset_reader.apply_token_indexers(instance)
        outputs = self._model.forward_on_instances(instances)
        if self._output_format == "json":
            # Text that was typed in has no id.
            known = [{name: value for name, value in output.items() if value is not None} for output in outputs]
            return sanitize(known)
        sentences = (instance["metadata"]["graph"] for instance in instances)
        return [{self._output_format: self._write(*pair)} for pair in zip(sentences, outputs)]

    def dump_line(self, outputs: JsonDict) -> str:
        if self._output_format == "json":
            return json.dumps(outputs, ensure_ascii=False) + "\n"
        header = f"{SDP_HEADER}\n\n" if self._output_format == "sdp" and not self._lines_dumped else ""
        self._lines_dumped += 1
        return header + outputs[self._output_format]

    def _write(self, sentence: DependencyGraph, output: JsonDict) -> str:
        predicted = DependencyGraph(
            words=sentence.words,
            lemmas=sentence.lemmas,
            pos_tags=sentence.pos_tags,
            tags=sentence.tags,
            heads=output.get("heads") if self._writes_heads else None,
            deprels=output.get("deprels") if self._writes_heads else None,
            feats=sentence.feats,
            misc=sentence.misc,
            multiword_tokens=sentence.multiword_tokens,
            comments=sentence.comments,
            sentence_id=sentence.sentence_id,
            arcs={(arc["dependent"], arc["head"]): arc["label"] for arc in output["arcs"]}
            if "arcs" in output
            else None,
            tops=dict.fromkeys(output["tops"], "root") if "tops" in output else None,
        )
        return write_sdp(predicted) if self._output_format == "sdp" else write_conllu(predicted)
