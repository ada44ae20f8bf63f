"""AllenNLP's own test of models, over every estimator and the structures that a sentence can have."""

import json
from typing import Any

import pytest
from allennlp.common.testing import ModelTestCase

from tests.models.configs import ESTIMATORS, STRUCTURED_ESTIMATORS
from tests.models.parsers import parser_keys
from tests.training.small import configuration, write_corpus

# The supervised loss knows only the differences of a word's scores, and most surrogates sum to 0 over them.
WITHOUT_GRADIENT = {
    "syntactic_head.arc_scorer.attention._bias",
    "syntactic_parser.syntactic_head.arc_scorer.attention._bias",
}


class TestSyntacticThenSemantic(ModelTestCase):
    def setup_method(self):
        super().setup_method()
        self.corpus = write_corpus(self.TEST_DIR / "corpus.conllu")

    def config_file(self, **keys: Any) -> str:
        path = self.TEST_DIR / "config.json"
        path.write_text(json.dumps(configuration(self.corpus, **keys)))
        return str(path)

    def check(self, **keys: Any) -> None:
        path = self.config_file(**keys)
        self.ensure_model_can_train_save_and_load(path, gradients_to_ignore=WITHOUT_GRADIENT)
        self.set_up_model(path, self.corpus, seed=3)
        self.ensure_batch_predictions_are_consistent()

    @pytest.mark.parametrize("estimator", ESTIMATORS)
    def test_estimator(self, estimator: str):
        # Some take independent choices only.
        structure = "projective_tree" if estimator in STRUCTURED_ESTIMATORS else "single_head"
        self.check(estimator=estimator, structure=structure, dropout=0.2)

    @pytest.mark.parametrize(
        "structure",
        [
            {"type": "projective_tree", "single_root": False},
            {"type": "projective_tree", "projection": "single_head"},
            "nonprojective_tree",
            "single_head",
            "arc_graph",
        ],
        ids=str,
    )
    def test_structure(self, structure: Any):
        self.check(structure=structure)

    @pytest.mark.parametrize("syntax", ["none", "gold"])
    def test_syntax_that_is_not_predicted(self, syntax: str):
        self.check(syntax=syntax)

    def test_parser_of_its_own(self):
        self.check(syntactic_parser=parser_keys())

    def test_relaxed_evaluation(self):
        self.check(estimator={"type": "marginals", "relaxed_evaluation": True})

    def test_syntactic_parser(self):
        path = self.TEST_DIR / "config.json"
        path.write_text(json.dumps({**configuration(self.corpus), "model": parser_keys(dropout=0.2)}))
        self.ensure_model_can_train_save_and_load(
            path, gradients_to_ignore={"syntactic_head.arc_scorer.attention._bias"}
        )
        self.set_up_model(path, self.corpus, seed=3)
        self.ensure_batch_predictions_are_consistent()
