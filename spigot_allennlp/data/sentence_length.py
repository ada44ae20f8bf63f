MAX_SENTENCE_LENGTH = 1000
"""
The default of the readers' `max_sentence_length`. Models score all pairs of a sentence's words, and for each score keep
a number of tensors: of 1,000 words they take 4 MB each, of 100,000 words 40 GB.
"""


def length_problem(length: int, max_sentence_length: int) -> str:
    """What is wrong with a sentence of that length; empty if nothing is."""
    if length <= max_sentence_length:
        return ""
    return (
        f"the sentence has {length} words, more than the dataset reader's max_sentence_length, {max_sentence_length}; "
        "split it, or set that key to a length for which memory suffices (it grows with the square)"
    )
