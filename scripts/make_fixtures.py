"""
Makes the data in `fixtures/`, always the same bytes, from a small grammar of English:

    python scripts/make_fixtures.py [directory]

A sentence starts as a clause and grows at its right edge: each modifier (a prepositional phrase, a relative or
adverbial clause, a coordination, an adverb) attaches to some word there. Its own words are chosen to suit that word,
but usually suit others too, so that the string alone says only partly what attaches where: the tree does. The graph
follows from the tree by the rules of `enhanced_edges`, so that whoever knows the tree better gets a better graph.
"""

import itertools
import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterable, List, Optional, Sequence, Tuple, TypeVar

ROOT = Path(__file__).resolve().parent.parent

# --- The lexicon. Words of a class are drawn with probability proportional to 1 / rank: the last ones are rare, and
# --- some of them occur in the development data only.

PEOPLE = (
    "cook waiter guest critic owner singer farmer teacher child driver doctor painter neighbour girl king sailor baker "
    "judge poet tailor"
).split()
NAMES = "Anna Boris Clara David Emma Felix Greta Henry Irene Jonas Klara Lewis".split()
FOOD = "soup bread cake salad stew pie cheese pudding omelette curry".split()
WORKS = "story film song play book letter poem report opera diary".split()
PLACES = "kitchen garden market theatre village tower harbour station castle museum cellar orchard".split()
INSTRUMENTS = "spoon knife telescope hammer brush ladle needle pencil".split()
ATTRIBUTES = "beard hat scarf smile limp moustache ring accent".split()
CARRIED = "dog umbrella camera lantern basket violin parrot map".split()  # had by someone, or used to do something
TIMES = "Monday Tuesday Friday Sunday".split()

GOOD = "lovely good tasty brilliant charming superb".split()
BAD = "awful dull bland bad dreadful clumsy".split()
PLAIN = "old small red tall local quiet round young".split()

MANNER = "quickly quietly carefully often again secretly".split()

# (lemma, past)
Verbs = List[Tuple[str, str]]


def verbs(pairs: str) -> Verbs:
    return [(lemma, past) for lemma, past in (pair.split("/") for pair in pairs.split())]


INTRANSITIVE = verbs("sleep/slept laugh/laughed arrive/arrived dance/danced wait/waited")
TRANSITIVE = verbs("see/saw praise/praised like/liked visit/visited hate/hated find/found call/called help/helped")
OPTIONAL = verbs("cook/cooked eat/ate paint/painted write/wrote watch/watched read/read")
SPEECH = verbs("say/said think/thought believe/believed hope/hoped")
SUBJECT_CONTROL = verbs("try/tried want/wanted seem/seemed decide/decided")
OBJECT_CONTROL = verbs("ask/asked persuade/persuaded tell/told force/forced")
PROMISE = ("promise", "promised")  # has an object, and yet its subject controls the infinitive
SUBJECT_CONTROLLERS = {lemma for lemma, _ in SUBJECT_CONTROL} | {PROMISE[0]}

# What modifies what: (preposition, class of the noun, weight). Most pairs stand under several kinds of site.
PHRASES_OF: Dict[str, Sequence[Tuple[str, Sequence[str], int]]] = {
    "verb": (
        ("with", INSTRUMENTS, 3),
        ("with", CARRIED, 4),
        ("in", PLACES, 5),
        ("near", PLACES, 2),
        ("for", PEOPLE, 3),
        ("on", TIMES, 2),
    ),
    "person": (
        ("with", ATTRIBUTES, 3),
        ("with", CARRIED, 4),
        ("in", PLACES, 3),
        ("from", PLACES, 3),
        ("near", PLACES, 2),
    ),
    "work": (("about", PEOPLE, 4), ("about", PLACES, 2), ("for", PEOPLE, 3), ("from", PLACES, 2), ("on", TIMES, 1)),
    "food": (("with", FOOD, 3), ("from", PLACES, 3), ("for", PEOPLE, 3)),
    "place": (("of", PEOPLE, 3), ("near", PLACES, 4), ("with", CARRIED, 1)),
    "thing": (("of", PEOPLE, 4), ("from", PLACES, 3)),
}
KIND = {
    **dict.fromkeys((*PEOPLE, *NAMES), "person"),
    **dict.fromkeys(FOOD, "food"),
    **dict.fromkeys(WORKS, "work"),
    **dict.fromkeys(PLACES, "place"),
    **dict.fromkeys((*INSTRUMENTS, *ATTRIBUTES, *CARRIED), "thing"),
}

LONGEST = 20


@dataclass(eq=False)
class Word:
    """A word of a tree; `head` is `None` for the root and until the word is attached."""

    form: str
    lemma: str
    upos: str
    xpos: str
    head: Optional["Word"] = None
    deprel: str = "root"
    # Forms of a multiword token stand apart in the tree ("did", "n't") and together in the text.
    glued: bool = False


def attach(dependent: Word, head: Word, deprel: str) -> Word:
    dependent.head, dependent.deprel = head, deprel
    return dependent


@dataclass
class Phrase:
    """Words in their order, their head, and the words at the right edge that a modifier may attach to."""

    words: List[Word]
    head: Word
    edge: List[Word]


@dataclass
class Sentence:
    words: List[Word]
    # (words before it, the verb that it repeats, its edges' labels by the word they lead to): "and Boris _ the cake"
    gap: Optional[Tuple[int, Word, Dict[Word, str]]] = None


Choice = TypeVar("Choice")


class Grammar:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    # --- choices

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def draw(self, words: Sequence[Choice]) -> Choice:
        return self.random.choices(words, [1 / rank for rank in range(1, len(words) + 1)])[0]

    # --- phrases

    def noun(self, lemma: str) -> Word:
        if lemma in NAMES or lemma in TIMES:
            return Word(lemma, lemma, "PROPN", "NNP")
        return Word(lemma, lemma, "NOUN", "NN")

    def adjective(self, choices: Sequence[str]) -> Word:
        lemma = self.draw(choices)
        return Word(lemma, lemma, "ADJ", "JJ")

    def noun_phrase(self, choices: Sequence[str]) -> Phrase:
        head = self.noun(self.draw(choices))
        words = [head]
        if head.upos == "NOUN":
            before = []
            if self.chance(0.25):
                before.append(attach(self.adjective(self.random.choice((GOOD, BAD, PLAIN, PLAIN))), head, "amod"))
            vowel = (before + words)[0].form[0] in "aeiou"
            form = "the" if self.chance(0.65) else "an" if vowel else "a"
            determiner = Word(form, "the" if form == "the" else "a", "DET", "DT")
            words = [attach(determiner, head, "det"), *before, head]
        return Phrase(words, head, [head])

    def person(self) -> Phrase:
        return self.noun_phrase(NAMES if self.chance(0.35) else PEOPLE)

    def verb(self, choices: Verbs, finite: bool, negated: float = 0.12) -> Phrase:
        lemma, past = self.draw(choices)
        if not finite:
            to = Word("to", "to", "PART", "TO")
            verb = Word(lemma, lemma, "VERB", "VB")
            return Phrase([attach(to, verb, "mark"), verb], verb, [verb])
        if self.chance(negated):
            verb = Word(lemma, lemma, "VERB", "VB")
            glued = self.chance(0.4)
            did = Word("did", "do", "AUX", "VBD")
            negation = Word("n't" if glued else "not", "not", "PART", "RB", glued=glued)
            return Phrase([attach(did, verb, "aux"), attach(negation, verb, "advmod"), verb], verb, [verb])
        verb = Word(past, lemma, "VERB", "VBD")
        return Phrase([verb], verb, [verb])

    def object_of(self, verb: Word) -> Phrase:
        if verb.lemma in ("cook", "eat"):
            return self.noun_phrase(FOOD)
        if verb.lemma in ("write", "read", "paint"):
            return self.noun_phrase(WORKS)
        kinds = (PEOPLE, PEOPLE, NAMES, WORKS, PLACES, FOOD, CARRIED)
        return self.noun_phrase(self.random.choice(kinds[:3] if verb.lemma in ("help", "call") else kinds))

    def verb_phrase(self, finite: bool = True, depth: int = 0) -> Phrase:
        pattern = self.random.choices(
            ("intransitive", "transitive", "optional", "shared", "subject control", "object control", "speech"),
            (2, 5, 2, 1, 1.5, 1.5, 1.5) if depth < 2 else (2, 5, 2, 0, 0, 0, 0),
        )[0]
        if pattern == "intransitive":
            return self.verb(INTRANSITIVE, finite)
        if pattern in ("transitive", "optional", "shared"):
            phrase = self.verb(TRANSITIVE if pattern == "transitive" else OPTIONAL, finite)
            verb = phrase.head
            words = phrase.words
            if pattern == "shared":  # "cooked and ate the soup": one object, which both verbs have
                second = self.verb(OPTIONAL, True, negated=0).head
                if not finite:
                    second = Word(second.lemma, second.lemma, "VERB", "VB")
                if second.lemma == verb.lemma:
                    return self.verb_phrase(finite, depth)
                words = [*words, self.coordinator(second), attach(second, verb, "conj")]
            elif pattern == "optional" and self.chance(0.4):
                return phrase
            patient = self.object_of(verb)
            attach(patient.head, verb, "obj")
            return Phrase(words + patient.words, verb, [verb, *patient.edge])
        if pattern == "speech":
            phrase = self.verb(SPEECH, finite)
            clause = self.clause(depth + 1)
            that = [attach(Word("that", "that", "SCONJ", "IN"), clause.head, "mark")] if self.chance(0.6) else []
            attach(clause.head, phrase.head, "ccomp")
            return Phrase(phrase.words + that + clause.words, phrase.head, phrase.edge + clause.edge)
        # Control: the infinitive has no subject of its own; whose it is depends on the verb.
        middle: List[Word] = []
        if pattern == "subject control":
            phrase = self.verb(SUBJECT_CONTROL, finite)
        else:
            phrase = self.verb([PROMISE] if self.chance(0.25) else OBJECT_CONTROL, finite)
            addressee = self.person()
            attach(addressee.head, phrase.head, "obj")
            middle = addressee.words
        infinitive = self.verb_phrase(False, depth + 1)
        attach(infinitive.head, phrase.head, "xcomp")
        return Phrase(phrase.words + middle + infinitive.words, phrase.head, phrase.edge + infinitive.edge)

    def clause(self, depth: int = 0) -> Phrase:
        if self.chance(0.15):
            subject = self.noun_phrase(self.random.choice((PEOPLE, FOOD, WORKS, PLACES)))
            predicate = self.adjective(self.random.choice((GOOD, BAD, PLAIN)))
            words = [*subject.words, attach(Word("was", "be", "AUX", "VBD"), predicate, "cop")]
            if self.chance(0.2):
                words.append(attach(Word("not", "not", "PART", "RB"), predicate, "advmod"))
            attach(subject.head, predicate, "nsubj")
            return Phrase([*words, predicate], predicate, [predicate])
        subject = self.person()
        before = list(subject.words)
        if depth < 2 and self.chance(0.15):
            before += self.modifier(subject.head, depth + 1, ("phrase", "relative")).words
        predicate = self.verb_phrase(depth=depth)
        attach(subject.head, predicate.head, "nsubj")
        return Phrase(before + predicate.words, predicate.head, predicate.edge)

    def coordinator(self, conjunct: Word) -> Word:
        form = "or" if self.chance(0.15) else "and"
        return attach(Word(form, form, "CCONJ", "CC"), conjunct, "cc")

    # --- modifiers, each attached to a site

    def modifier(self, site: Word, depth: int, kinds: Sequence[str]) -> Phrase:
        kind = self.random.choice(kinds)
        if kind == "phrase":
            return self.prepositional_phrase(site)
        if kind == "relative":
            return self.relative_clause(site, depth)
        if kind == "adverb":
            adverb = self.draw(MANNER)
            word = attach(Word(adverb, adverb, "ADV", "RB"), site, "advmod")
            return Phrase([word], word, [])
        if kind == "adverbial":
            marker = self.random.choice(("because", "when", "although"))
            clause = self.clause(depth + 1)
            mark = attach(Word(marker, marker, "SCONJ", "IN"), clause.head, "mark")
            attach(clause.head, site, "advcl")
            return Phrase([mark, *clause.words], clause.head, clause.edge)
        # A coordination: of verb phrases, which then share the subject, or of nouns.
        if site.upos == "VERB":
            second = self.verb_phrase(depth=depth + 1)
        else:
            choices = next(words for words in (PEOPLE, FOOD, WORKS, PLACES, NAMES, CARRIED) if site.lemma in words)
            second = self.noun_phrase(choices)
        attach(second.head, site, "conj")
        return Phrase([self.coordinator(second.head), *second.words], second.head, second.edge)

    def prepositional_phrase(self, site: Word) -> Phrase:
        options = PHRASES_OF["verb" if site.upos in ("VERB", "ADJ") else KIND[site.lemma]]
        preposition, choices, _ = self.random.choices(options, [weight for *_, weight in options])[0]
        phrase = self.noun_phrase(choices)
        case = attach(Word(preposition, preposition, "ADP", "IN"), phrase.head, "case")
        attach(phrase.head, site, "obl" if site.upos in ("VERB", "ADJ") else "nmod")
        edge = [] if phrase.head.lemma in TIMES else phrase.edge
        return Phrase([case, *phrase.words], phrase.head, edge)

    def relative_clause(self, site: Word, depth: int) -> Phrase:
        pronoun = Word("that", "that", "PRON", "WDT")
        if KIND[site.lemma] == "person" and self.chance(0.6):
            predicate = self.verb_phrase(depth=depth + 1)
            attach(pronoun, predicate.head, "nsubj")
            words, head, edge = [pronoun, *predicate.words], predicate.head, predicate.edge
        else:
            subject = self.person()
            verb = self.verb(OPTIONAL if KIND[site.lemma] in ("food", "work") else TRANSITIVE, True, negated=0.2)
            attach(subject.head, verb.head, "nsubj")
            attach(pronoun, verb.head, "obj")
            words, head, edge = [pronoun, *subject.words, *verb.words], verb.head, verb.edge
        attach(head, site, "acl:relcl")
        return Phrase(words, head, edge)

    # --- sentences

    def sentence(self) -> Sentence:
        while True:
            sentence = self._attempt()
            if len(sentence.words) <= LONGEST:
                first = sentence.words[0]
                first.form = first.form[0].upper() + first.form[1:]
                return sentence

    def _attempt(self) -> Sentence:
        draw = self.random.random()
        if draw < 0.03:
            return Sentence(self._fragment())
        if draw < 0.06:
            return self._gapping()
        clause = self.clause()
        words, edge = list(clause.words), list(clause.edge)
        subject = next((word for word in words if word.deprel == "nsubj" and word.head is clause.head), None)
        if len(words) <= 5 and clause.head.upos == "VERB" and subject.upos == "NOUN" and self.chance(0.3):
            # Extraposed to the end of the sentence, across the verb: not projective.
            words += self.modifier(subject, 1, ("relative", "phrase")).words
        else:
            for _ in range(self.random.choices((0, 1, 2, 3), (2, 5, 4, 2))[0]):
                if not edge:
                    break
                position = self.random.randrange(len(edge))
                site = edge[position]
                if site.upos == "VERB":
                    kinds = ["phrase", "phrase", "phrase", "adverb", "adverbial"]
                    if site.xpos == "VBD":  # The second verb will be finite too.
                        kinds.append("coordination")
                elif site.upos == "ADJ":
                    kinds = ["adverbial", "phrase"]
                elif KIND[site.lemma] == "thing" and site.lemma not in CARRIED:
                    kinds = ["phrase"]
                else:
                    kinds = ["phrase", "phrase", "phrase", "relative", "coordination"]
                added = self.modifier(site, 1, kinds)
                words += added.words
                edge = edge[: position + 1] + added.edge
        if self.chance(0.9):
            words.append(attach(Word(".", ".", "PUNCT", "."), clause.head, "punct"))
        return Sentence(words)

    def _fragment(self) -> List[Word]:
        if self.chance(0.5):
            form = self.random.choice(("Thanks", "Wonderful", "Hello"))
            return [Word(form, form.lower(), "INTJ", "UH")]
        phrase = self.noun_phrase(self.random.choice((WORKS, FOOD)))
        return [*phrase.words, attach(Word(".", ".", "PUNCT", "."), phrase.head, "punct")]

    def _gapping(self) -> Sentence:
        """ "Anna ate the soup and Boris the cake": the second verb is an empty node of the graph."""
        subject, verb = self.person(), self.verb(OPTIONAL, True, negated=0).head
        patient, second_subject, second_patient = self.object_of(verb), self.person(), self.object_of(verb)
        attach(subject.head, verb, "nsubj")
        attach(patient.head, verb, "obj")
        attach(second_subject.head, verb, "conj")
        attach(second_patient.head, second_subject.head, "orphan")
        cc = attach(Word("and", "and", "CCONJ", "CC"), second_subject.head, "cc")
        words = [*subject.words, verb, *patient.words, cc, *second_subject.words]
        gap = (len(words), verb, {second_subject.head: "nsubj", second_patient.head: "obj", cc: "cc"})
        words += [*second_patient.words, attach(Word(".", ".", "PUNCT", "."), verb, "punct")]
        return Sentence(words, gap)


# --- From the tree to the graph

Edges = Dict[Word, Dict[Optional[Word], str]]  # dependent -> head (None: ROOT) -> label


def enhanced_edges(words: Sequence[Word]) -> Edges:
    """
    The enhanced graph, as Universal Dependencies defines it: labels with their prepositions and conjunctions, subjects
    of infinitives, arguments of relative clauses, what conjuncts share.
    """
    children: Dict[Word, List[Word]] = {word: [] for word in words}
    for word in words:
        if word.head is not None:
            children[word.head].append(word)

    def child(word: Word, deprel: str) -> Optional[Word]:
        return next((other for other in children[word] if other.deprel == deprel), None)

    def label(word: Word) -> str:
        marker = {"obl": "case", "nmod": "case", "advcl": "mark", "conj": "cc"}.get(word.deprel)
        found = marker and child(word, marker)
        return f"{word.deprel}:{found.lemma}" if found else word.deprel

    edges: Edges = {word: {word.head: label(word)} for word in words}
    # Conjuncts have the heads of the first conjunct, and its subject and object where they have none of their own.
    for word in words:
        if word.deprel == "conj":
            first = word.head
            edges[word][first.head] = label(first) if first.head is not None else "root"
            if word.upos == "VERB":
                subject = child(first, "nsubj")
                if subject is not None and child(word, "nsubj") is None:
                    edges[subject][word] = "nsubj"
                patient = child(first, "obj")
                if patient is not None and words.index(patient) > words.index(word):
                    edges[patient][word] = "obj"
    # Infinitives, outermost first, as a subject is handed down from one to the next.
    for word in words:
        if word.deprel == "xcomp":
            controller = word.head
            patient = child(controller, "obj")
            if patient is not None and controller.lemma not in SUBJECT_CONTROLLERS:
                subjects = [patient]
            else:
                subjects = [other for other in words if edges[other].get(controller, "").startswith("nsubj")]
            for subject in subjects:
                edges[subject][word] = "nsubj:xsubj"
                for conjunct in children[word]:
                    if conjunct.deprel == "conj":
                        edges[subject][conjunct] = "nsubj:xsubj"
    # In a relative clause the noun takes the place of the pronoun, which only refers to it.
    for word in words:
        if word.deprel == "acl:relcl":
            for pronoun in [other for other in words if other.xpos == "WDT" and other.head is word]:
                for governor, role in edges[pronoun].items():
                    edges[word.head][governor] = role
                edges[pronoun] = {word.head: "ref"}
    return edges


# --- Writing


def text_of(words: Sequence[Word]) -> str:
    text = ""
    for word in words:
        text += word.form if word.glued or word.upos == "PUNCT" or not text else " " + word.form
    return text


def to_conllu(sentence: Sentence, sentence_id: str) -> str:
    words = sentence.words
    position = {word: (index, 0) for index, word in enumerate(words, 1)}
    edges: Dict[Word, Dict[Optional[Word], str]] = enhanced_edges(words)
    gap_word = None
    if sentence.gap is not None:
        before, verb, roles = sentence.gap
        gap_word = Word(verb.form, verb.lemma, verb.upos, verb.xpos)
        position[gap_word] = (before, 1)
        edges[gap_word] = {verb: "conj:and"}
        for word, role in roles.items():
            edges[word] = {gap_word: role}

    def name(word: Optional[Word]) -> str:
        if word is None:
            return "0"
        number, decimal = position[word]
        return f"{number}.{decimal}" if decimal else str(number)

    def deps(word: Word) -> str:
        ordered = sorted(edges[word].items(), key=lambda edge: position.get(edge[0], (0, 0)))
        return "|".join(f"{name(head)}:{label}" for head, label in ordered)

    lines = [f"# sent_id = {sentence_id}", f"# text = {text_of(words)}"]
    for index, word in enumerate(words):
        if index + 1 < len(words) and words[index + 1].glued:
            form = word.form + words[index + 1].form
            lines.append("\t".join([f"{index + 1}-{index + 2}", form, *"_" * 8]))
        space = "SpaceAfter=No" if index + 1 < len(words) and words[index + 1].upos == "PUNCT" else "_"
        columns = [word.form, word.lemma, word.upos, word.xpos, "_", name(word.head), word.deprel, deps(word), space]
        lines.append("\t".join([str(index + 1), *columns]))
        if gap_word is not None and position[gap_word] == (index + 1, 1):
            columns = [gap_word.form, gap_word.lemma, gap_word.upos, gap_word.xpos, "_", "_", "_", deps(gap_word), "_"]
            lines.append("\t".join([name(gap_word), *columns]))
    return "\n".join(lines) + "\n\n"


FRAMES = {"VERB": "v:event", "ADJ": "a:state", "NOUN": "n:x", "PROPN": "named:x"}


def to_sdp(sentence: Sentence, number: int, with_tree: bool) -> str:
    words = sentence.words
    position: Dict[Optional[Word], int] = {word: index for index, word in enumerate(words, 1)}
    position[None] = 0
    edges = enhanced_edges(words)
    predicates = [word for word in words if any(word in heads for heads in edges.values())]
    lines = [f"#{number}"]
    for word in words:
        tree = [str(position[word.head]), word.deprel] if with_tree else []
        flags = ["+" if None in edges[word] else "-", "+" if word in predicates else "-"]
        frame = FRAMES.get(word.upos, "_") if word in predicates else "_"
        arguments = [edges[word].get(predicate, "_") for predicate in predicates]
        columns = [str(position[word]), word.form, word.lemma, word.xpos, *tree, *flags, frame, *arguments]
        lines.append("\t".join(columns))
    return "\n".join(lines) + "\n\n"


def to_companion(sentence: Sentence, number: int) -> str:
    position: Dict[Optional[Word], int] = {word: index for index, word in enumerate(sentence.words, 1)}
    position[None] = 0
    rows = [f"{word.xpos}\t{position[word.head]}\t{word.deprel}" for word in sentence.words]
    return "\n".join([f"#{number}", *rows]) + "\n\n"


# --- Sentiment

Tree = Tuple  # (label, word) or (label, left, right); labels from 0, very negative, to 4, very positive

STRENGTH = {word: 4 if word in ("brilliant", "superb") else 3 for word in GOOD}
STRENGTH.update({word: 0 if word in ("awful", "dreadful") else 1 for word in BAD})


class SentimentGrammar(Grammar):
    """
    Binary trees, every node with its label. What counts is what is said of the subject: not what a relative clause
    or a subordinate clause says, and a negation turns around only what it stands in.
    """

    def tree(self) -> Tree:
        tree = self._clause(0)
        if self.chance(0.2):
            other = self._clause(1)
            link = self.random.choice(("although", "but", "while"))
            label = other[0] if link == "but" else tree[0]
            tree = (label, tree, (label if link == "but" else 2, (2, link), other))
        return self._capitalized((tree[0], tree, (2, ".")))

    def _capitalized(self, tree: Tree) -> Tree:
        if len(tree) == 2:
            return (tree[0], tree[1][0].upper() + tree[1][1:])
        return (tree[0], self._capitalized(tree[1]), tree[2])

    def _adjective(self) -> Tree:
        word = self.draw(self.random.choice((GOOD, BAD, PLAIN)))
        label = STRENGTH.get(word, 2)
        if label != 2 and self.chance(0.15):
            return (4 if label > 2 else 0, (2, "very"), (label, word))
        return (label, word)

    def _noun_phrase(self, choices: Sequence[str], depth: int) -> Tree:
        tree: Tree = (2, self.draw(choices))
        if self.chance(0.3):
            adjective = self._adjective()
            tree = (adjective[0], adjective, tree)
        tree = (tree[0], (2, "the"), tree)
        if depth < 1 and self.chance(0.4):
            relative = self._predicate(depth + 1)
            tree = (tree[0], tree, (relative[0], (2, "that"), relative))
        elif self.chance(0.08):
            remark = ((2, "a"), (2, self.draw(WORKS)))
            tree = (tree[0], tree, (2, (2, "-LRB-"), (2, (2, *remark), (2, "-RRB-"))))
        return tree

    def _predicate(self, depth: int) -> Tree:
        if self.chance(0.65):
            tree, auxiliary = self._adjective(), "was"
        else:
            verb, label = self.random.choice((("loved", 3), ("hated", 1), ("watched", 2)))
            patient = self._noun_phrase(WORKS, depth + 1)
            if not self.chance(0.25):
                return (patient[0] if label == 2 else label, (label, verb), patient)
            verb = {"loved": "love", "hated": "hate", "watched": "watch"}[verb]
            tree, auxiliary = (patient[0] if label == 2 else label, (label, verb), patient), "did"
        if auxiliary == "did" or self.chance(0.3):
            turned = 1 if tree[0] > 2 else 3 if tree[0] < 2 else 2
            tree = (turned, (2, "not"), tree)
        return (tree[0], (2, auxiliary), tree)

    def _clause(self, depth: int) -> Tree:
        subject = self._noun_phrase(self.random.choice((WORKS, FOOD, PEOPLE)), depth)
        predicate = self._predicate(depth)
        return (predicate[0] if predicate[0] != 2 else subject[0], subject, predicate)


def to_sst(tree: Tree) -> str:
    label, *parts = tree
    return f"({label} {' '.join(part if isinstance(part, str) else to_sst(part) for part in parts)})"


# --- Inference


def entailment_pair(grammar: Grammar, index: int) -> Dict[str, object]:
    """
    A premise with two people who each do something; whether a hypothesis follows depends on who did what, which the
    relative clause's attachment says.
    """
    first, second = (grammar.draw(people) for people in (PEOPLE[::2], PEOPLE[1::2]))
    (event, happened), (deed, done) = grammar.draw(INTRANSITIVE), grammar.draw(TRANSITIVE)
    premise = f"The {first} that {done} the {second} {happened} in the {grammar.draw(PLACES)} ."
    hypotheses = {
        "entailment": (f"The {first} {happened} .", f"The {first} {done} the {second} ."),
        "neutral": (f"The {second} {happened} .", f"The {second} {done} the {first} ."),
        "contradiction": (f"The {first} did not {event} .", f"The {first} did not {deed} the {second} ."),
    }
    label = grammar.random.choice(sorted(hypotheses))
    hypothesis = grammar.random.choice(hypotheses[label])
    # Annotators who disagree, as in SNLI: without a majority the gold label is "-".
    disagreement = grammar.chance(0.04)
    return {
        "annotator_labels": sorted(hypotheses) if disagreement else [label],
        "captionID": f"{index}.jpg#0",
        "gold_label": "-" if disagreement else label,
        "pairID": f"{index}.jpg#0{label[0]}",
        "sentence1": premise,
        "sentence2": hypothesis,
    }


# --- Word vectors


def word_vectors(forms: Iterable[str], seed: int, dimension: int = 10) -> str:
    """Words of a class lie close together, so that the vectors know something of words that training does not show."""
    rng = random.Random(seed)
    classes = [PEOPLE, NAMES, FOOD, WORKS, PLACES, INSTRUMENTS, ATTRIBUTES, CARRIED, TIMES, GOOD, BAD, PLAIN, MANNER]
    for pairs in (INTRANSITIVE, TRANSITIVE, OPTIONAL, SPEECH, SUBJECT_CONTROL, OBJECT_CONTROL):
        classes.append([form for pair in pairs for form in pair])
    class_of = {word.lower(): index for index, words in enumerate(classes) for word in words}
    centres = [[rng.gauss(0, 0.5) for _ in range(dimension)] for _ in classes]
    lines = []
    for form in sorted(forms):
        centre = centres[class_of[form.lower()]] if form.lower() in class_of else [0.0] * dimension
        spread = 0.2 if form.lower() in class_of else 0.5
        values = [f"{mean + rng.gauss(0, spread):.3f}" for mean in centre]
        lines.append(" ".join([form, *values]))
    return "\n".join(lines) + "\n"


# --- All files


def make_files() -> Dict[str, str]:
    """The contents of every file, by its path."""
    grammar = Grammar(seed=2018)
    seen = set()

    def sentences(number: int, keep: Callable[[Sentence], bool] = lambda _: True) -> List[Sentence]:
        """No sentence twice, except one-word sentences: too few would be left for the later files."""
        made: List[Sentence] = []
        while len(made) < number:
            sentence = grammar.sentence()
            text = text_of(sentence.words)
            if keep(sentence) and (len(sentence.words) == 1 or text not in seen):
                seen.add(text)
                made.append(sentence)
        return made

    files: Dict[str, str] = {}
    parts = {"train": sentences(400), "dev": sentences(100), "test": sentences(70)}
    for part, made in parts.items():
        files[f"graphs/{part}.conllu"] = "".join(
            to_conllu(sentence, f"{part}-{number:04d}") for number, sentence in enumerate(made, 1)
        )
    # SDP has no empty nodes. Its sentences are a part of the same ones, as a companion file triples what they take.
    for part, first, limit in (("train", 21000001, 60), ("dev", 22000001, 30)):
        made = [sentence for sentence in parts[part] if sentence.gap is None][:limit]
        numbered = list(zip(made, itertools.count(first)))
        files[f"graphs/{part}.sdp"] = "#SDP 2015\n" + "".join(to_sdp(*pair, with_tree=False) for pair in numbered)
        files[f"graphs/{part}.cpn"] = "".join(to_companion(*pair) for pair in numbered)
        if part == "dev":
            files["graphs/dev.augmented.sdp"] = "".join(to_sdp(*pair, with_tree=True) for pair in numbered)

    sentiment = SentimentGrammar(seed=2013)
    for part, number in (("train", 200), ("dev", 60)):
        files[f"sst/{part}.txt"] = "".join(to_sst(sentiment.tree()) + "\n" for _ in range(number))

    inference = Grammar(seed=2015)
    for part, number in (("train", 80), ("dev", 30)):
        pairs = [entailment_pair(inference, index) for index in range(number)]
        files[f"snli/{part}.jsonl"] = "".join(json.dumps(pair) + "\n" for pair in pairs)

    files["text/sentences.txt"] = "".join(text_of(sentence.words) + "\n" for sentence in sentences(12))

    forms = {word.form for made in parts.values() for sentence in made for word in sentence.words}
    for content in (files["sst/train.txt"], files["sst/dev.txt"]):
        forms.update(token.rstrip(")") for token in content.split() if not token.startswith("("))
    files["vectors/vectors.txt"] = word_vectors(forms | {form.lower() for form in forms}, seed=2014)
    return files


def main() -> None:
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "fixtures"
    for name, content in make_files().items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
