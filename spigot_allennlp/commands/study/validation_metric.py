"""
What a config's `trainer.validation_metric` says.
"""

import math
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

from allennlp.common.checks import ConfigurationError


class ValidationMetric(NamedTuple):
    """
    By which AllenNLP chooses the best epoch, and a study the best setting.

    # Parameters

    parts : `Tuple[Tuple[int, str], ...]`
        Signs and names of the metrics whose signed sum counts: `(1, "accuracy")` for `+accuracy` (more is better), and
        `(-1, "loss")` for `-loss` (less is better).
    """

    parts: Tuple[Tuple[int, str], ...]

    @classmethod
    def of(cls, config: str, params: Dict[str, Any]) -> "ValidationMetric":
        """
        # Errors

        `ConfigurationError` for a metric without a sign.
        """
        given = params["trainer"].get("validation_metric", "-loss")
        names = [given] if isinstance(given, str) else given
        for name in names:
            if name[:1] not in ("+", "-"):
                raise ConfigurationError(
                    f"{config}: trainer.validation_metric is {name!r}; valid: '+{name}' if more is better, "
                    f"'-{name}' if less is"
                )
        return cls(tuple((-1 if name[0] == "-" else 1, name[1:]) for name in names))

    @property
    def name(self) -> str:
        """That of the first part, which is shown."""
        return self.parts[0][1]

    @property
    def direction(self) -> str:
        return " and ".join(f"{'more' if sign > 0 else 'less'} {name}" for sign, name in self.parts)

    def score(self, mean: Callable[[str], Optional[float]]) -> float:
        """
        More is better, and a missing value worst.

        # Parameters

        mean : `Callable[[str], Optional[float]]`
            Function from a metric's name in AllenNLP's `metrics.json` to its mean.
        """
        means = [(sign, mean(f"best_validation_{name}")) for sign, name in self.parts]
        return -math.inf if any(value is None for _, value in means) else sum(sign * value for sign, value in means)
