"""
`python -m spigot_allennlp` is `allennlp` with this package among its plugins, so that our subcommands are there in
directories without an `.allennlp_plugins` file, too: `--include-package` is read too late for a subcommand.
"""

from allennlp.__main__ import run

if __name__ == "__main__":
    run()
