"""What a study consists of, and what is refused before anything is trained."""

import json
import re
from pathlib import Path
from typing import Any, List

import pytest
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.commands.study.command import _EPILOG
from spigot_allennlp.commands.study.design import Design, design, read_description
from spigot_allennlp.structures import LatentStructure, ProjectiveTree
from tests.conftest import PROJECT_ROOT

CLUSTERS = PROJECT_ROOT / "training_configs" / "clusters"
BASE = str(CLUSTERS / "latent.jsonnet")


@LatentStructure.register("without_top_k")
class WithoutTopK(ProjectiveTree):
    def supports(self, operation: str) -> bool:
        return operation != "top_k" and super().supports(operation)


def designed(overrides: str = "", config: str = BASE, **flags: Any) -> Design:
    return design(config, read_description(None, flags), overrides)


def settings(plan: Design, *names: str) -> List[tuple]:
    return [(run.name, *(run.settings.get(name) for name in names), run.seed) for run in plan.runs]


def write(path: Path, content: Any) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


class TestRuns:
    def test_every_estimator_with_every_setting_that_it_takes_and_every_seed(self):
        plan = designed(estimators=["spigot", "marginals"], step_sizes=[0.1, 1], num_steps=[1, 5], seeds=[3, 4])
        expected = [("spigot", x, n, seed) for x in (0.1, 1) for n in (1, 5) for seed in (3, 4)]
        assert settings(plan, "step_size", "num_steps") == [
            *expected,
            ("marginals", None, None, 3),
            ("marginals", None, None, 4),
        ]
        run = plan.runs[2]
        assert run.params["model"]["estimator"] == {"type": "spigot", "step_size": 0.1, "num_steps": 5}
        assert [run.params[name] for name in ("random_seed", "numpy_seed", "pytorch_seed")] == [3, 3, 3]
        assert len({run.folder for run in plan.runs}) == len(plan.runs)

    def test_the_config_alone(self):
        (run,) = designed().runs
        assert (run.name, run.estimator, run.seed) == ("latent", "spigot", 13370)
        assert run.settings["step_size"] == 1 and run.settings["num_steps"] == 1
        assert run.settings["learning_rate"] == 0.002

    def test_grid_of_the_configs_own_estimator(self):
        config = str(PROJECT_ROOT / "training_configs" / "syntactic_then_semantic" / "spigot.jsonnet")
        plan = designed(config=config, step_sizes=[0.1, 10])
        assert settings(plan, "step_size", "max_gradient_norm") == [("spigot", 0.1, 1, 13370), ("spigot", 10, 1, 13370)]

    def test_study_file(self, tmp_path):
        path = write(
            tmp_path / "study.jsonnet",
            """{
              estimators: [
                { type: 'spigot', step_size: [0.1, 1.0] },
                'ste',
                { name: 'REINFORCE', type: 'score_function', baseline: 'self_critic' },
              ],
              step_sizes: [5],
              overrides: { 'dataset_reader.noise': [0.1, 0.2] },
              learning_rates: [0.01],
              seeds: [1, 2],
            }""",
        )
        plan = design(BASE, read_description(path, {"seeds": [7]}))
        names = ("step_size", "baseline", "learning_rate", "dataset_reader.noise")
        expected = [("spigot", 0.1), ("spigot", 1), ("ste", 5), ("REINFORCE", None)]
        assert settings(plan, *names) == [
            (name, size, "self_critic" if name == "REINFORCE" else None, 0.01, noise, 7)
            for name, size in expected
            for noise in (0.1, 0.2)
        ]
        assert plan.runs[0].params["dataset_reader"]["noise"] == 0.1
        assert plan.runs[0].params["trainer"]["optimizer"]["lr"] == 0.01
        assert plan.varying() == ["step_size", "dataset_reader.noise"]

    @pytest.mark.parametrize(
        "text", [_EPILOG, (PROJECT_ROOT / "docs" / "how-to" / "study.md").read_text()], ids=["help", "page"]
    )
    def test_study_files_of_the_documentation(self, tmp_path, monkeypatch, text):
        monkeypatch.chdir(PROJECT_ROOT)
        path = write(tmp_path / "study.jsonnet", re.search(r"^ *{\n.*?^ *}$", text, re.MULTILINE | re.DOTALL)[0])
        plan = design(BASE, read_description(path, {}))
        assert {"ste", "spigot", "REINFORCE"} <= {run.name for run in plan.runs}
        assert {"step_size", "num_steps", "learning_rate"} < set(plan.varying())

    def test_baselines_keep_their_models_and_have_the_seeds(self):
        none, latent = str(CLUSTERS / "none.jsonnet"), str(CLUSTERS / "latent.jsonnet")
        plan = designed(
            '{"trainer.num_epochs": 2}', estimators=["spigot"], step_sizes=[0.5], seeds=[1, 2], baselines=[none, latent]
        )
        names = ["spigot", "none", "latent"]
        assert [(run.name, run.seed) for run in plan.runs] == [(name, seed) for name in names for seed in (1, 2)]
        assert plan.runs[2].params["model"]["cluster"] == "none" and plan.runs[2].estimator is None
        assert all(run.params["trainer"]["num_epochs"] == 2 for run in plan.runs)

    def test_what_is_the_same_is_one_run(self, tmp_path):
        """However it is said: by a study file, where 1.0 is 1, by flags, or by a baseline."""
        path = write(tmp_path / "study.jsonnet", "{estimators: [{type: 'spigot', step_size: 1.0}], seeds: [1]}")
        by_file = design(BASE, read_description(path, {"baselines": [BASE]}))
        by_flags = designed(estimators=["spigot"], step_sizes=[1], seeds=[1])
        assert [run.folder for run in by_file.runs] == [run.folder for run in by_flags.runs]

    @pytest.mark.parametrize(
        "given, direction, better, worse",
        [
            ("+accuracy", "more accuracy", {"accuracy": 0.9}, {"accuracy": 0.8}),
            ("-loss", "less loss", {"loss": 0.1}, {"loss": 0.2}),
            (
                ["+accuracy", "-loss"],
                "more accuracy and less loss",
                {"accuracy": 0.5, "loss": 0.1},
                {"accuracy": 0.5, "loss": 0.4},
            ),
            ("+accuracy", "more accuracy", {"accuracy": 0.1}, {}),
        ],
    )
    def test_direction_of_the_validation_metric(self, given, direction, better, worse):
        metric = designed(json.dumps({"trainer.validation_metric": given})).metric
        assert metric.direction == direction
        scores = [metric.score({f"best_validation_{k}": v for k, v in means.items()}.get) for means in (better, worse)]
        assert scores[0] > scores[1]


class TestRefusals:
    @pytest.mark.parametrize(
        "flags, message",
        [
            ({"estimators": ["spigott"]}, r"unknown estimator 'spigott'; valid: blackbox, .*spigot, .*ste_marginals"),
            ({"estimators": ["marginals"], "step_sizes": [1]}, "step_sizes: none of the estimators marginals takes"),
            ({"estimators": ["spigot"], "step_sizes": [0]}, "step_size is 0; valid: a number > 0"),
            ({"estimators": ["spigot", "spigot"]}, "two estimators are called 'spigot'"),
            ({"estimators": ["minimum_risk"], "baselines": ["no.jsonnet"]}, "the config no.jsonnet does not exist"),
            ({"estimators": ["spigot"], "learning_rates": ["a"]}, "learning_rates has 'a'; valid: a number"),
            ({"estimators": ["spigot"], "learning_rates": [0.1, -1]}, "a learning rate is -1; valid: a number > 0"),
            ({"estimators": ["spigot"], "learning_rates": [float("nan")]}, "a learning rate is nan"),
            ({"estimators": ["spigot"], "seeds": [1, -1]}, "seeds has -1; valid: 0 to 4294967295"),
            ({"estimators": ["spigot"], "seeds": [2**32]}, "seeds has 4294967296; valid: 0 to 4294967295"),
            ({"baselines": [str(CLUSTERS / "none.jsonnet")] * 2}, "is named twice"),
        ],
    )
    def test_flags(self, flags, message):
        with pytest.raises(ConfigurationError, match=message):
            designed(**flags)

    @pytest.mark.parametrize(
        "content, message",
        [
            ({"estimator": ["spigot"]}, "unknown key 'estimator'; valid: estimators, baselines"),
            ({"seeds": 1}, "seeds is 1; valid: a list"),
            ({"seeds": [1.5]}, "seeds has 1.5; valid: an integer"),
            ({"overrides": {"trainer.num_epochs": 3}}, "'trainer.num_epochs' is 3; valid: a list"),
            ({"overrides": {"trainer.optimizer.lr": [1]}, "learning_rates": [1]}, "say the same thing"),
            ({"overrides": {"trainer.epochs.number": [3]}}, "cannot be overridden with .*trainer.epochs"),
            (
                {"estimators": [{"type": "spigot", "stepsize": 1}]},
                r"the estimator spigot \(spigot\) has no key 'stepsize'; valid: step_size",
            ),
            ({"estimators": [{"type": "spigot", "step_size": []}]}, "spigot: step_size has no values"),
            (
                {"estimators": [{"type": "spigot", "step_size": ["big"]}]},
                "latent.jsonnet with .*'big'.*step_size to be",
            ),
            (
                {"estimators": [{"type": "spigot", "num_steps": 1.5}]},
                "with the estimator spigot, .*1.5.*num_steps to be",
            ),
            ({"estimators": [{"type": "spigot", "name": 3}]}, "an estimator is called 3; valid: a string"),
            ({"overrides": {"model": [1]}}, "latent.jsonnet has no model and trainer"),
            ({"overrides": {"model.estimator.step_size": [1, -1]}}, "step_size is -1; valid: a number > 0"),
            ({"overrides": {"model.structure": ["tree"]}}, "with the estimator latent, .*tree not in acceptable"),
            (
                {"estimators": ["spigot"], "overrides": {"model.estimator.step_size": [1, 2]}},
                "'model.estimator.step_size' is overridden in a config whose estimator the study replaces",
            ),
            (
                {"overrides": {"trainer.validation_metric": ["+v_measure"]}},
                "latent has another .*more v_measure and more",
            ),
            ("{estimators: [", "study.jsonnet cannot be read"),
            ([{"type": "spigot"}], r'study.jsonnet is \[{"type": "spigot"}\]; valid: an object'),
        ],
    )
    def test_study_file(self, tmp_path, content, message):
        path = write(tmp_path / "study.jsonnet", content)
        with pytest.raises(ConfigurationError, match=message):
            design(BASE, read_description(path, {}))

    @pytest.mark.parametrize(
        "overrides, message",
        [
            ("{", "are no JSON"),
            ('{"trainer.num_epoch.x": 1}', "cannot be overridden"),
            ('{"model.estimator.num_steps": 5}', "'model.estimator.num_steps' is overridden in a config whose"),
            ('{"trainer.validation_metric": "accuracy"}', r"'accuracy'; valid: '\+accuracy' if more is better"),
            ('{"model.type": "latent_cluster_classifer"}', "model.type is 'latent_cluster_classifer', which is no"),
        ],
    )
    def test_overrides(self, overrides, message):
        with pytest.raises(ConfigurationError, match=message):
            designed(overrides, estimators=["ste"])

    def test_estimator_that_the_structure_cannot_serve(self):
        config = str(PROJECT_ROOT / "training_configs" / "sentiment" / "latent.jsonnet")
        overrides = json.dumps({"model.structure": "without_top_k"})
        assert len(designed(overrides, config=config, estimators=["spigot"]).runs) == 1
        with pytest.raises(ConfigurationError, match="minimum_risk.* 'top_k', which .*without_top_k"):
            designed(overrides, config=config, estimators=["spigot", "minimum_risk"])

    def test_model_without_an_estimator(self):
        config = str(PROJECT_ROOT / "training_configs" / "syntactic_then_semantic" / "syntactic_parser.jsonnet")
        with pytest.raises(ConfigurationError, match="the model 'syntactic_parser' takes no estimator"):
            designed(config=config, estimators=["spigot"])

    def test_config_without_validation_data(self, tmp_path):
        params = json.loads(json.dumps(designed().runs[0].params))
        del params["validation_data_path"]
        with pytest.raises(ConfigurationError, match="has no validation_data_path"):
            designed(config=write(tmp_path / "config.json", params))

    def test_baseline_with_another_validation_metric(self, tmp_path):
        params = json.loads(json.dumps(designed().runs[0].params))
        params["trainer"]["validation_metric"] = "-loss"
        path = write(tmp_path / "by_loss.json", params)
        with pytest.raises(ConfigurationError, match="by_loss has another .*, less loss and more accuracy"):
            designed(baselines=[path])


@pytest.mark.parametrize("overrides", [{"trainer.num_epoch": 1}, {"trainer.optimizer.learning_rate": 1}])
def test_a_misspelt_key_of_an_override(overrides: dict):
    """Not in every run."""
    key = next(iter(overrides)).rpartition(".")[2]
    with pytest.raises(ConfigurationError, match=f"latent.jsonnet, with its overrides: .* has no key '{key}'; valid: "):
        designed(json.dumps(overrides))
    with pytest.raises(ConfigurationError, match=f"has no key '{key}'"):
        design(BASE, read_description(None, {"overrides": {name: [value] for name, value in overrides.items()}}))
