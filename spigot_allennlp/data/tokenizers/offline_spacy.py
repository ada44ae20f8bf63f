import sys
from typing import List, Sequence

import spacy
from allennlp.common.checks import ConfigurationError
from allennlp.data import Token, Tokenizer
from spacy.pipeline import Sentencizer
from spacy.tokens import Doc
from spacy.tokens import Token as SpacyToken


@Tokenizer.register("offline_spacy")
class OfflineSpacyTokenizer(Tokenizer):
    """
    spaCy's rule-based tokenizer, which needs no download (AllenNLP's `spacy` tokenizer fetches a trained pipeline
    when it is built, and spaCy's pipelines are not on PyPI).

    # Parameters

    language : `str`, optional (default = `"en"`)
        A language that `spacy.blank` knows.
    pipeline : `str`, optional (default = `None`)
        The name or path of an installed, trained pipeline, which then also gives lemmas and parts of speech.

    # Errors

    `ConfigurationError` for an unknown language or a pipeline that is not installed.
    """

    def __init__(self, language: str = "en", pipeline: str = None) -> None:
        try:
            self._spacy = spacy.blank(language) if pipeline is None else spacy.load(pipeline, exclude=["ner", "parser"])
        except (ImportError, OSError) as error:
            what = f"language '{language}'" if pipeline is None else f"pipeline '{pipeline}'"
            raise ConfigurationError(
                f"spaCy has no {what} here. Valid: a language of spacy.blank, or a pipeline that "
                f"`python -m spacy validate` lists as installed ({error})"
            ) from None
        # It is there to protect pipelines with a parser, which stays out; too long a text the readers refuse.
        self._spacy.max_length = sys.maxsize
        self._sentencizer = Sentencizer()

    def tokenize(self, text: str) -> List[Token]:
        return [_token(token) for token in self._spacy(text) if not token.is_space]

    def split_sentences(self, text: str) -> List[List[Token]]:
        """
        The tokens of each sentence of a text, which spaCy's rules end at `.`, `!`, `?` and their like in other scripts
        (`Sentencizer`). Tokens know their place in the text (`idx`).
        """
        sentences = (
            [_token(token) for token in span if not token.is_space]
            for span in self._sentencizer(self._spacy(text)).sents
        )
        return [sentence for sentence in sentences if sentence]

    def tag(self, words: Sequence[str]) -> List[Token]:
        """The same words as tokens, with the lemmas and parts of speech that the pipeline predicts for them."""
        return [_token(token) for token in self._spacy(Doc(self._spacy.vocab, words=list(words)))]


def _token(token: SpacyToken) -> Token:
    return Token(
        text=token.text,
        idx=token.idx,
        lemma_=token.lemma_ or None,
        pos_=token.pos_ or None,
        tag_=token.tag_ or None,
    )
