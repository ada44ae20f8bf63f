"""
Installs AllenNLP 2.10.1 into the running Python's environment, beside whatever torch, spaCy and transformers
are there (`pip install .` brings them; `requirements/allennlp.txt` says why AllenNLP cannot come the same
way):

    pip install .
    python scripts/install_allennlp.py
"""

import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import List

ROOT = Path(__file__).resolve().parent.parent
SITE_PACKAGES = Path(sysconfig.get_path("purelib"))

# AllenNLP imports torchvision unconditionally. The right one is the one built for the installed torch, but
# the newest wheels on PyPI fail to import beside a torch of another build (CUDA or CPU). This is the last
# version that imports beside any torch: it then leaves its compiled operators unloaded, which only AllenNLP's
# vision models would use.
FALLBACK_TORCHVISION = "torchvision==0.15.2"

# Warnings of others that AllenNLP's command line provokes before it loads any plugin: the fallback's about
# its unloaded compiled part, and that of Google's client (imported by cached-path) about the age of Python
# 3.10. Only a .pth file reaches them, of which Python runs the lines that start with "import" whenever it
# starts.
FILTER_FILE = "spigot_allennlp_warnings.pth"
FILTERED_WARNINGS = (
    ("Failed to load image Python extension", "UserWarning", r"torchvision\.io\.image"),
    ("You are using a non-supported Python version", "FutureWarning", r"google\.api_core\..*"),
)


def pip_install(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, *arguments], check=True)


def torchvision_imports() -> bool:
    """Tried in a process of its own: a failed import leaves half-registered operators behind."""
    check = subprocess.run([sys.executable, "-W", "ignore", "-c", "import torchvision"], capture_output=True)
    return check.returncode == 0


def fallback_arguments() -> List[str]:
    if sys.version_info < (3, 12):
        return [FALLBACK_TORCHVISION]
    # There is no such wheel for Python 3.12, but its Python part works there, and the rest stays unloaded.
    return ["--python-version", "3.11", "--upgrade", "--target", str(SITE_PACKAGES), FALLBACK_TORCHVISION]


def main() -> None:
    pip_install("--no-build-isolation", "--requirement", str(ROOT / "requirements" / "allennlp.txt"))
    if not torchvision_imports():
        pip_install(*fallback_arguments())
        if not torchvision_imports():
            sys.exit(f"No torchvision imports beside this torch, not even {FALLBACK_TORCHVISION}.")
    (SITE_PACKAGES / FILTER_FILE).write_text(
        "".join(
            f"import warnings; warnings.filterwarnings('ignore', {message!r}, {category}, {module!r})\n"
            for message, category, module in FILTERED_WARNINGS
        )
    )


if __name__ == "__main__":
    main()
