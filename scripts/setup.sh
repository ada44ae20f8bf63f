#!/usr/bin/env bash
# Makes a virtual environment (default: .venv) in which the package, AllenNLP and the development tools work, in the
# tested versions. Needs a Python 3.10 to 3.13 and the network, nothing else. May be run again at any time.
set -euo pipefail
cd "$(dirname "$0")/.."
venv="${1:-.venv}"

in_range() {
    # Run it, instead of looking for a file of that name: version managers leave names behind that only print an error.
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3.10 python3 python}; do
        if in_range "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    if [[ -n "${PYTHON:-}" ]]; then
        echo "PYTHON=$PYTHON is not a Python 3.10, 3.11, 3.12 or 3.13 that runs." >&2
    else
        echo "No Python 3.10 to 3.13 found (tried python3.11, python3.12, python3.13, python3.10, python3, python)." \
            "Install one, or name one: make install PYTHON=/path/to/python3.11" >&2
    fi
    return 1
}

if ! in_range "$venv/bin/python"; then
    python="$(find_python)"
    echo "== Virtual environment $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi

quiet=(--quiet --disable-pip-version-check --no-input)
echo "== Installing the dependencies (about 1.5 GB with the CPU build of torch; a minute or two)"
"$venv/bin/python" -m pip install "${quiet[@]}" --constraint requirements/constraints.txt --upgrade pip setuptools
# (setuptools warns at every editable installation that it is one.)
PYTHONWARNINGS="ignore:Editable installation" \
    "$venv/bin/python" scripts/pip_install.py "${quiet[@]}" --no-build-isolation --editable ".[dev]"
"$venv/bin/allennlp" --version
