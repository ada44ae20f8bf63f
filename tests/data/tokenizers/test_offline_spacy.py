import socket

import pytest
import spacy
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import Tokenizer

from spigot_allennlp.predictors import OfflineSpacyTokenizer


def test_it_needs_no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    tokenizer = Tokenizer.from_params(Params({"type": "offline_spacy"}))
    assert [token.text for token in tokenizer.tokenize("Anna didn't see  the dog's (old) owner.")] == [
        *["Anna", "did", "n't", "see", "the", "dog", "'s", "(", "old", ")", "owner", "."]
    ]


def test_without_a_pipeline_nothing_is_known_of_a_word():
    (token,) = OfflineSpacyTokenizer().tokenize("Stop")
    assert (token.idx, token.lemma_, token.pos_, token.tag_) == (0, None, None, None)
    assert OfflineSpacyTokenizer().tokenize(" \t ") == []


def test_another_language():
    english, unspecific = (OfflineSpacyTokenizer(language=language).tokenize("didn't") for language in ("en", "xx"))
    assert [token.text for token in english] == ["did", "n't"]
    assert [token.text for token in unspecific] == ["didn't"]


def test_a_pipeline_by_its_path(tmp_path):
    pipeline = spacy.blank("en")
    ruler = pipeline.add_pipe("attribute_ruler")
    ruler.add([[{"TEXT": "dogs"}]], {"LEMMA": "dog", "POS": "NOUN", "TAG": "NNS"})
    pipeline.to_disk(tmp_path)
    first, second = OfflineSpacyTokenizer(pipeline=str(tmp_path)).tokenize("dogs bark")
    assert (first.lemma_, first.pos_, first.tag_) == ("dog", "NOUN", "NNS")
    assert (second.lemma_, second.pos_, second.tag_) == (None, None, None)


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"language": "klingon"}, "spaCy has no language 'klingon' here. Valid: a language of spacy.blank"),
        ({"pipeline": "en_core_web_none"}, "spaCy has no pipeline 'en_core_web_none' here"),
    ],
)
def test_refused(keys, message):
    with pytest.raises(ConfigurationError) as error:
        OfflineSpacyTokenizer(**keys)
    assert message in str(error.value)
