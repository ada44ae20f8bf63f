from typing import Any, List

from allennlp.common import JsonDict
from allennlp.data import DatasetReader, Instance, Tokenizer
from allennlp.models import Model
from allennlp.predictors import Predictor

from spigot_allennlp.checks import one_of, refuse_unknown_keys
from spigot_allennlp.data import SDP_HEADER, Sentence, write_conllu, write_sdp
from spigot_allennlp.predictors.sentence_predictor import SentencePredictor

_FORMATS = ("json", "sdp", "conllu")


@Predictor.register("dependency_graph")
class DependencyGraphPredictor(SentencePredictor):
    """
    Parses sentences: see `SentencePredictor` for what it takes.

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

    `ConfigurationError` for another `output_format` and for input that is no sentence.
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
        super().__init__(model, dataset_reader, tokenizer, **kwargs)
        self._output_format = one_of("output_format", output_format, _FORMATS)
        structure = getattr(model, "structure", None)
        is_tree = structure is not None and structure.always_tree
        self._writes_heads = is_tree and (structure.single_root or output_format == "sdp")
        self._lines_dumped = 0

    def predict_batch_instance(self, instances: List[Instance]) -> List[JsonDict]:
        outputs = super().predict_batch_instance(instances)
        if self._output_format == "json":
            return outputs
        sentences = (instance["metadata"]["graph"] for instance in instances)
        return [{self._output_format: self._write(*pair)} for pair in zip(sentences, outputs)]

    def dump_line(self, outputs: JsonDict) -> str:
        if self._output_format == "json":
            return super().dump_line(outputs)
        header = f"{SDP_HEADER}\n\n" if self._output_format == "sdp" and not self._lines_dumped else ""
        self._lines_dumped += 1
        return header + outputs[self._output_format]

    def parse(self, sentences: List[Sentence]) -> List[Sentence]:
        """
        # Parameters

        sentences : `List[Sentence]`
            What they hold besides words is kept, except trees and graphs.

        # Returns

        `List[Sentence]`
            The same sentences, with the predicted trees and graphs.
        """
        instances = [self._dataset_reader.text_to_instance(sentence) for sentence in sentences]
        outputs = super().predict_batch_instance(instances)
        return [self._parsed(*pair) for pair in zip(sentences, outputs)]

    def _write(self, sentence: Sentence, output: JsonDict) -> str:
        parsed = self._parsed(sentence, output)
        return write_sdp(parsed) if self._output_format == "sdp" else write_conllu(parsed)

    def _parsed(self, sentence: Sentence, output: JsonDict) -> Sentence:
        return Sentence(
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
