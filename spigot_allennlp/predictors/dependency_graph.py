from dataclasses import replace
from typing import Any, List

from allennlp.common import JsonDict
from allennlp.data import DatasetReader, Instance, Tokenizer
from allennlp.models import Model
from allennlp.predictors import Predictor

from spigot_allennlp.checks import one_of, refuse_unknown_keys
from spigot_allennlp.data import SDP_HEADER, Sentence, write_conllu, write_sdp
from spigot_allennlp.data.tokenizers.offline_spacy import OfflineSpacyTokenizer
from spigot_allennlp.predictors.sentence_predictor import SentencePredictor
from spigot_allennlp.predictors.text_predictor import Input

_FORMATS = ("json", "sdp", "conllu")


@Predictor.register("dependency_graph")
class DependencyGraphPredictor(SentencePredictor):
    """
    Parses sentences: see `SentencePredictor` for what it takes. For `allennlp predict` a line of plain text is a
    paragraph, of one sentence or several.

    # Parameters

    model : `Model`
        Model to predict with.
    dataset_reader : `DatasetReader`
        Reader that makes instances.
    tokenizer : `Tokenizer`, optional (default = `offline_spacy`)
        Tokenizer of plain text.
    split_sentences : `bool`, optional (default = `True`)
        Whether a line of plain text is split into sentences, by spaCy's rules. Otherwise it is one sentence.
    skip_invalid_lines : `bool`, optional (default = `False`)
        Whether invalid lines are skipped: see `TextPredictor`. In SDP and CoNLL-U such a line gives nothing.
    output_format : `str`, optional (default = `"json"`)
        `"json"` (one object a line), `"sdp"` or `"conllu"`; on the command line:
        `--predictor-args '{"output_format": "conllu"}'`. The heads of a structure that may be no tree (of single-rooted
        ones in the case of CoNLL-U, which knows no others) have no place there, and stand in JSON only.

    # Errors

    `ConfigurationError` for another `output_format` and for input that is not a sentence.
    """

    def __init__(
        self,
        model: Model,
        dataset_reader: DatasetReader,
        tokenizer: Tokenizer = None,
        output_format: str = "json",
        split_sentences: bool = True,
        skip_invalid_lines: bool = False,
        **kwargs: Any,
    ) -> None:
        refuse_unknown_keys(self, kwargs)
        super().__init__(model, dataset_reader, tokenizer, skip_invalid_lines, **kwargs)
        self._output_format = one_of("output_format", output_format, _FORMATS)
        structure = getattr(model, "structure", None)
        is_tree = structure is not None and structure.always_tree
        self._writes_heads = is_tree and (structure.single_root or output_format == "sdp")
        self._split_sentences = split_sentences
        self._splitter = self._tokenizer if isinstance(self._tokenizer, OfflineSpacyTokenizer) else None
        self._lines_dumped = 0
        self._sentences_written = 0

    def split(self, text: str) -> List[Sentence]:
        """
        # Parameters

        text : `str`
            Text of a paragraph.

        # Returns

        `List[Sentence]`
            Its sentences, with what it takes to rebuild it: see `Sentence.from_text`.
        """
        if self._splitter is None:
            self._splitter = OfflineSpacyTokenizer()
        split = self._splitter.split_sentences(text)
        starts = [tokens[0].idx for tokens in split]
        sentences = []
        for tokens, start, next_start in zip(split, starts, [*starts[1:], None]):
            stop = tokens[-1].idx + len(tokens[-1].text)
            following = None if next_start is None else text[stop:next_start]
            if self._splitter is self._tokenizer:
                sentences.append(Sentence.from_text(text, tokens, following))
            else:
                piece = text[start:stop]
                sentences.append(Sentence.from_text(piece, self._tokens(piece) or [], following))
        return sentences

    def _split(self, entry: Input) -> List[Input]:
        if entry.text is None or not self._split_sentences:
            return [entry]
        sentences = self.split(entry.text)
        if sentences:
            sentences[0].comments.insert(0, "# newpar")
        inputs = [Input(sentence=sentence.text) for sentence in sentences]
        for each, sentence in zip(inputs, sentences):
            each.parsed = sentence
        return inputs

    def _json_to_instance(self, json_dict: JsonDict) -> Instance:
        sentence = getattr(json_dict, "parsed", None)
        if sentence is None:
            tokens, text = self._tokens_of(json_dict), json_dict.get("sentence")
            sentence = Sentence.from_tokens(tokens) if text is None else Sentence.from_text(text, tokens)
        return self._dataset_reader.text_to_instance(sentence)

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
        return header + outputs.get(self._output_format, "")

    def parse(self, sentences: List[Sentence]) -> List[Sentence]:
        """
        # Parameters

        sentences : `List[Sentence]`
            Sentences to parse. Their other annotation is kept, except trees and graphs.

        # Returns

        `List[Sentence]`
            The same sentences, with the predicted trees and graphs.
        """
        instances = [self._dataset_reader.text_to_instance(sentence) for sentence in sentences]
        outputs = super().predict_batch_instance(instances)
        return [self._parsed(i["metadata"]["graph"], output) for i, output in zip(instances, outputs)]

    def _write(self, sentence: Sentence, output: JsonDict) -> str:
        parsed = self._parsed(sentence, output)
        self._sentences_written += 1
        # Sentences of files keep what they have, even if that is not an id.
        if sentence.line is None:
            parsed.sentence_id = str(self._sentences_written)
        if self._output_format == "conllu":
            return write_conllu(parsed)
        # Comments on text are for CoNLL-U.
        return write_sdp(parsed if sentence.line is not None else replace(parsed, comments=[]))

    def _parsed(self, sentence: Sentence, output: JsonDict) -> Sentence:
        return replace(
            sentence,
            heads=output.get("heads") if self._writes_heads else None,
            deprels=output.get("deprels") if self._writes_heads else None,
            arcs={(arc["dependent"], arc["head"]): arc["label"] for arc in output["arcs"]}
            if "arcs" in output
            else None,
            tops=dict.fromkeys(output["tops"], "root") if "tops" in output else None,
            loops={},
            predicates=None,
            frames=None,
        )
