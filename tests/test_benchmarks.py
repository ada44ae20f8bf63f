"""
The benchmarks run and write their reports; what they measure is not looked at.
"""

import json
import subprocess
import sys

import pytest

from tests.conftest import PROJECT_ROOT


def test_inference_benchmark(tmp_path):
    command = [sys.executable, "benchmarks/inference.py", "--quick", "--out", str(tmp_path)]
    finished = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr

    results = json.loads((tmp_path / "inference.json").read_text())
    assert results["machine"]["threads"] == 1
    operations = {cell["operation"] for cell in results["cells"]}
    assert len(operations) == 10
    for cell in results["cells"]:
        assert cell["times"]["ours"]["ms"] > 0
        # Peers are compared with wherever they are installed.
        assert cell["agree"], cell
    assert {entry["operation"] for entry in results["memory"]} == operations
    # Only the grid of the full run has the sizes that the bars are about.
    assert results["bars"] and all(bar["met"] is None for bar in results["bars"])

    report = (tmp_path / "inference.md").read_text()
    for operation in operations:
        assert f"## {operation.capitalize()}\n" in report
    assert "| B | n | ours, ms |" in report


def test_gpu_benchmark(tmp_path):
    """On the CPU: the batched paths run and agree with float64, and the rule chooses none of them."""
    command = [sys.executable, "benchmarks/gpu.py", "--device", "cpu", "--quick", "--out", str(tmp_path)]
    finished = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr

    results = json.loads((tmp_path / "gpu.json").read_text())
    assert len({cell["operation"] for cell in results["cells"]}) == 7
    for cell in results["cells"]:
        assert cell["exact"] and cell["chosen"] == "host", cell
        assert cell["ms"]["batched"] > 0 and cell["ms"]["host"] > 0
    assert "no GPU" in (tmp_path / "gpu.md").read_text()


@pytest.mark.slow
def test_training_benchmark(tmp_path):
    command = [sys.executable, "benchmarks/training.py", "--sentences", "64", "--out", str(tmp_path)]
    finished = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr

    results = json.loads((tmp_path / "training.json").read_text())
    spigot, pipeline = results["median_ms"]["spigot"], results["median_ms"]["pipeline"]
    assert spigot["(pull-back)"] > 0 and pipeline["(pull-back)"] == 0
    phases = {name: value for name, value in spigot.items() if name not in ("step", "cpu", "(pull-back)")}
    assert all(value > 0 for name, value in phases.items() if name != "other"), phases
    assert results["ratio_to_pipeline"]["pipeline"] == 1
    assert "| bar | required | measured |" in (tmp_path / "training.md").read_text()
