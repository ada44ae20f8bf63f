"""
Which word of one tokenization is which of another one of the same text.
"""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple, Optional

from allennlp.common.checks import ConfigurationError

from spigot_allennlp.data.sentence import Sentence
from spigot_allennlp.data.text_files import malformed, read_lines

_SHOWN = 20
"""How many characters an error shows."""


class AlignedWord(NamedTuple):
    """
    # Parameters

    form : `str`
        The word.
    start, end : `int`
        Characters of the text that its token stands for. The words of a multiword token share all of its
        characters.
    in_multiword_token : `bool`
        Whether the word is part of a multiword token.
    """

    form: str
    start: int
    end: int
    in_multiword_token: bool


class TokenizedText:
    """
    The sentences of a file as one sequence of characters, without spaces, and where in it tokens, words and
    sentences are.

    # Parameters

    sentences : `Sequence[Sentence]`
        Sentences of the file.
    file_path : `str`
        Path of their file, for errors.

    # Errors

    `ConfigurationError` for a token of spaces alone, which stands for no text.
    """

    def __init__(self, sentences: Sequence[Sentence], file_path: str) -> None:
        self.sentences = sentences
        self.file_path = file_path
        self.words: list[AlignedWord] = []
        # shape: (sentences,). Of characters, first and one after the last; and the number of words before.
        self.spans: list[tuple[int, int]] = []
        self.offsets: list[int] = []
        # Of each token its first character, its sentence and its ID column.
        self._tokens: list[tuple[int, Sentence, str]] = []
        parts: list[str] = []
        end = 0
        for sentence in sentences:
            first = end
            self.offsets.append(len(self.words))
            multiword_end = 0
            for number, word in enumerate(sentence.words, 1):
                line = sentence.multiword_tokens.get(number)
                token_id, token = str(number), word
                if line is not None:
                    token_id, token = line.split("\t")[:2]
                    multiword_end = int(token_id.partition("-")[2])
                if number > multiword_end or line is not None:
                    token = "".join(character for character in token if unicodedata.category(character) != "Zs")
                    if not token:
                        raise malformed(
                            file_path, _line_of(file_path, sentence, token_id), "the token is nothing but spaces"
                        )
                    parts.append(token)
                    start, end = end, end + len(token)
                    self._tokens.append((start, sentence, token_id))
                if number > multiword_end:
                    self.words.append(AlignedWord(token, start, end, in_multiword_token=False))
                else:
                    self.words.append(AlignedWord(word, start, end, in_multiword_token=True))
            self.spans.append((first, end))
        self.text = "".join(parts)

    def place(self, position: int) -> str:
        """`path:line` of the token that has a character of the text."""
        start, sentence, token_id = max(
            (token for token in self._tokens if token[0] <= position), key=lambda token: token[0]
        )
        return f"{self.file_path}:{_line_of(self.file_path, sentence, token_id)}"


def align(gold: TokenizedText, system: TokenizedText) -> list[Optional[int]]:
    """
    Aligns words as the evaluations of the CoNLL 2018 and IWPT 2020 and 2021 shared tasks do (Zeman et al. 2018, section
    5; Bouma et al. 2020). Words that are tokens of their own are aligned where they stand for the same characters.
    Around multiword tokens, of either side, the words of both sides are aligned by a longest common subsequence of
    their lower-cased forms.

    # Returns

    `List[Optional[int]]`
        For each system word the gold word, `None` where there is none.

    # Errors

    `ConfigurationError` that says where the texts first differ.
    """
    if gold.text != system.text:
        raise ConfigurationError(_difference(gold, system))
    partner: list[Optional[int]] = [None] * len(system.words)
    ours, theirs = gold.words, system.words
    g = s = 0
    while g < len(ours) and s < len(theirs):
        if ours[g].in_multiword_token or theirs[s].in_multiword_token:
            # A word that begins before the multiword token is in no way part of it.
            if ours[g].in_multiword_token:
                end = ours[g].end
                s += not theirs[s].in_multiword_token and theirs[s].start < ours[g].start
            else:
                end = theirs[s].end
                g += ours[g].start < theirs[s].start
            next_g, next_s = _multiword_span(ours, theirs, g, s, end)
            forms = ([word.form.lower() for word in ours[g:next_g]], [word.form.lower() for word in theirs[s:next_s]])
            for gold_word, system_word in _common_subsequence(*forms):
                partner[s + system_word] = g + gold_word
            g, s = next_g, next_s
        elif (ours[g].start, ours[g].end) == (theirs[s].start, theirs[s].end):
            partner[s] = g
            g, s = g + 1, s + 1
        elif ours[g].start <= theirs[s].start:
            g += 1
        else:
            s += 1
    return partner


def _multiword_span(
    gold: Sequence[AlignedWord], system: Sequence[AlignedWord], g: int, s: int, end: int
) -> tuple[int, int]:
    """
    The words after those up to the character `end`, which every multiword token that begins before it moves to its own
    end.
    """

    def inside(words: Sequence[AlignedWord], index: int) -> bool:
        if index == len(words):
            return False
        word = words[index]
        return word.start < end if word.in_multiword_token else word.end <= end

    while inside(gold, g) or inside(system, s):
        from_gold = g < len(gold) and (s == len(system) or gold[g].start <= system[s].start)
        word = gold[g] if from_gold else system[s]
        if word.in_multiword_token:
            end = max(end, word.end)
        g, s = g + from_gold, s + (not from_gold)
    return g, s


def _common_subsequence(first: Sequence[str], second: Sequence[str]) -> list[tuple[int, int]]:
    """
    The indices of a longest common subsequence: of several, the one that pairs what it can as early as it can, and
    rather leaves out elements of `first` than of `second`.
    """
    # lengths[i][j]: of the longest one of first[i:] and second[j:].
    lengths = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i in reversed(range(len(first))):
        for j in reversed(range(len(second))):
            lengths[i][j] = max(
                lengths[i + 1][j + 1] + 1 if first[i] == second[j] else 0, lengths[i + 1][j], lengths[i][j + 1]
            )
    pairs = []
    i = j = 0
    while i < len(first) and j < len(second):
        if first[i] == second[j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif lengths[i][j] == lengths[i + 1][j]:
            i += 1
        else:
            j += 1
    return pairs


def _difference(gold: TokenizedText, system: TokenizedText) -> str:
    shared = min(len(gold.text), len(system.text))
    position = next((at for at in range(shared) if gold.text[at] != system.text[at]), shared)
    expected = "valid: the same text on both sides, however it is split into tokens and sentences"
    for longer, shorter in ((gold, system), (system, gold)):
        if position == len(shorter.text):
            return (
                f"{shorter.file_path} ends where {longer.place(position)} goes on with "
                f"{longer.text[position : position + _SHOWN]!r}; {expected}"
            )
    found, gold_text = (text.text[position : position + _SHOWN] for text in (system, gold))
    return f"{system.place(position)}: found {found!r}, but {gold.place(position)} has {gold_text!r}; {expected}"


def _line_of(file_path: str, sentence: Sentence, token_id: str) -> int:
    """The line of a sentence's token: found again in the file, as sentences do not carry it along."""
    for number, line in enumerate(read_lines(file_path), 1):
        if number >= sentence.line and line.startswith(f"{token_id}\t"):
            return number
    return sentence.line
