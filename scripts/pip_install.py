"""
`pip install`, with a wheel of AllenNLP whose pins current versions satisfy (scripts/allennlp_wheel.py):

    python scripts/pip_install.py .

Everything after the script's name is handed to `pip install`. The tested versions are constraints, unless the
arguments bring a `--constraint` of their own.
"""

import subprocess
import sys
from pathlib import Path

from allennlp_wheel import write_wheel

ROOT = Path(__file__).resolve().parent.parent
WHEELS = ROOT / "build" / "wheels"

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if not arguments:
        sys.exit("What is to be installed? For example: python scripts/pip_install.py .")
    write_wheel(WHEELS)
    if not any(argument in ("-c", "--constraint") for argument in arguments):
        arguments = ["--constraint", str(ROOT / "requirements" / "constraints.txt"), *arguments]
    sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", "--find-links", str(WHEELS), *arguments]))
