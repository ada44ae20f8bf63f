"""
`spigot_allennlp.data` by the name that AllenNLP gives to readers.
"""

from spigot_allennlp.data import *  # noqa: F403
from spigot_allennlp.data import __all__  # noqa: F401
