from allennlp.common.checks import ConfigurationError
from allennlp.data import Vocabulary


def check_vocabulary(vocab: Vocabulary, part: Vocabulary, key: str) -> None:
    """
    A model is fed with indices of its own vocabulary; so is the pre-trained model that is a part of it.

    # Parameters

    vocab, part : `Vocabulary`
        Vocabularies of the model and of its part.
    key : `str`
        Key of the part in the model's config.

    # Errors

    `ConfigurationError` where the two disagree.
    """
    for namespace in sorted(part.get_namespaces() & vocab.get_namespaces()):
        parts = part.get_index_to_token_vocabulary(namespace)
        for index, token in vocab.get_index_to_token_vocabulary(namespace).items():
            if parts.get(index) != token:
                raise ConfigurationError(
                    f"this model's vocabulary has '{token}' at {index} of namespace '{namespace}', the vocabulary of "
                    f"{key} has '{parts.get(index)}' there. Valid: a vocabulary that begins with the "
                    'parser\'s, as in "vocabulary": {"type": "extend", "directory": <the parser\'s archive>}'
                )
