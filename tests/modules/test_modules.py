"""The neural modules against their formulas, word by word and arc by arc."""

import pytest
import torch
from allennlp.common import Lazy, Params
from allennlp.data import Vocabulary
from allennlp.modules.seq2seq_encoders import PytorchSeq2SeqWrapper
from allennlp.modules.text_field_embedders import BasicTextFieldEmbedder
from allennlp.modules.token_embedders import Embedding

from spigot_allennlp.modules import (
    ArcLabeler,
    ArcScorer,
    BiaffineArcScorer,
    HeadComposer,
    ParserHead,
    Relations,
    RootSentinel,
    TextEncoder,
)
from spigot_allennlp.modules.root import mask_with_root, with_root

DIM = 4


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def close(first: torch.Tensor, second: torch.Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)


def test_biaffine_arc_scorer():
    scorer = ArcScorer.from_params(Params({"type": "biaffine", "arc_dim": 3}), input_dim=DIM)
    assert isinstance(scorer, BiaffineArcScorer)
    states = torch.randn(2, 5, DIM)
    scores = scorer(states)
    assert scores.shape == (2, 5, 5)
    weight, bias = scorer.attention._weight_matrix, scorer.attention._bias
    for b, d, h in [(0, 1, 3), (1, 4, 0), (1, 2, 4)]:
        one = torch.ones(1)
        dependent = torch.cat([scorer.dependent(states[b, d]), one])
        head = torch.cat([scorer.head(states[b, h]), one])
        # The appended ones bring the linear terms; the last number of the matrix is then a constant like the bias.
        close(scores[b, d, h], dependent @ weight @ head + bias.squeeze())
    assert not torch.allclose(scores, scores.transpose(1, 2))


def test_arc_labeler_is_a_biaffine_form_for_each_label():
    labeler = ArcLabeler(DIM, num_labels=3, label_dim=2)
    states = torch.randn(2, 4, DIM)
    arcs = (torch.tensor([0, 1, 1]), torch.tensor([1, 3, 2]), torch.tensor([2, 0, 3]))
    logits = labeler(states, arcs)
    assert logits.shape == (3, 3)
    matrices = labeler.bilinear.weight.view(3, 3, 3)  # label, head, dependent
    for arc, (b, d, h) in enumerate(zip(*(index.tolist() for index in arcs))):
        dependent = torch.cat([labeler.dependent(states[b, d]), torch.ones(1)])
        head = torch.cat([labeler.head(states[b, h]), torch.ones(1)])
        close(logits[arc], torch.stack([head @ matrix @ dependent for matrix in matrices]))


def test_arc_labeler_without_arcs():
    none = torch.zeros(0, dtype=torch.long)
    assert ArcLabeler(DIM, num_labels=3)(torch.randn(2, 4, DIM), (none, none, none)).shape == (0, 3)


def test_head_composer_takes_the_state_of_the_head():
    composer = HeadComposer(DIM)
    states = torch.randn(2, 4, DIM)
    heads = torch.tensor([[-1, 2, 0, 2], [-1, 0, 1, -1]])
    arcs = torch.nn.functional.one_hot(heads.clamp(min=0), 4).float() * (heads >= 0).unsqueeze(-1)
    composed = composer(states, arcs)
    for b in range(2):
        for i in range(4):
            expected = composer.own(states[b, i])
            if heads[b, i] >= 0:
                expected = expected + composer.of_head.weight @ states[b, heads[b, i]]
            close(composed[b, i], torch.nn.functional.elu(expected))


def test_head_composer_mixes_heads_by_their_probabilities():
    composer = HeadComposer(DIM, output_dim=3)
    states, arcs = torch.randn(1, 3, DIM), torch.rand(1, 3, 3)
    composed = composer(states, arcs)
    assert composed.shape == (1, 3, 3)
    mixed = sum(arcs[0, 1, j] * (composer.of_head.weight @ states[0, j]) for j in range(3))
    close(composed[0, 1], torch.nn.functional.elu(composer.own(states[0, 1]) + mixed))


def test_head_composer_without_a_structure():
    composer = HeadComposer(DIM)
    states = torch.randn(1, 3, DIM)
    close(composer(states, None), composer(states, torch.zeros(1, 3, 3)))


def test_root():
    root = RootSentinel(DIM)
    states = torch.randn(2, 3, DIM)
    with_sentinel = root(states)
    assert with_sentinel.shape == (2, 4, DIM)
    close(with_sentinel[:, 1:], states)
    close(with_sentinel[0, 0], root.state)
    close(with_sentinel[1, 0], root.state)

    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert mask_with_root(mask).tolist() == [[True, True, True, False], [False] * 4]
    values = torch.tensor([[5, 6, 7], [8, 9, 10]])
    assert with_root(values, -1, mask).tolist() == [[-1, 5, 6, -1], [-1] * 4]
    assert values.tolist() == [[5, 6, 7], [8, 9, 10]]


def test_text_encoder():
    embedder = BasicTextFieldEmbedder({"tokens": Embedding(DIM, num_embeddings=9)})
    lstm = torch.nn.LSTM(DIM, 3, bidirectional=True, batch_first=True)
    encoder = TextEncoder(embedder, PytorchSeq2SeqWrapper(lstm), dropout=0.5).eval()
    assert encoder.get_output_dim() == 6
    states, mask = encoder({"tokens": {"tokens": torch.tensor([[3, 4, 5], [6, 0, 0]])}})
    assert states.shape == (2, 4, 6)
    assert mask.tolist() == [[True] * 4, [True, True, False, False]]
    alone, _ = encoder({"tokens": {"tokens": torch.tensor([[6]])}})
    close(states[1, :2], alone[0])

    plain = TextEncoder(embedder)
    states, _ = plain({"tokens": {"tokens": torch.tensor([[3, 4]])}})
    close(states[0, 1:], embedder.token_embedder_tokens.weight[[3, 4]])


def vocabulary(*relations: str) -> Vocabulary:
    vocab = Vocabulary()
    for relation in relations:
        vocab.add_token_to_namespace(relation, "head_relations")
    return vocab


def test_relations_begin_behind_padding_and_unknown():
    relations = Relations(vocabulary("nsubj", "obj"), "head_relations")
    assert relations.num_labels == 2 and relations.labels_by_name() == {"nsubj": 0, "obj": 1}
    assert [relations.name_of_label(0), relations.name(3)] == ["nsubj", "obj"]
    assert Relations(vocabulary(), "head_relations").num_labels == 0


def test_encodings_of_relations():
    indices = torch.tensor([-1, 0, 1, 2, 4, 5])
    assert Relations.labels(indices, 3).tolist() == [-1, -1, -1, 0, 2, -1]
    assert Relations.indices(torch.tensor([-1, 0, 2])).tolist() == [-1, 2, 4]


def test_graphs_of_relations():
    """Top nodes are arcs from ROOT, without a relation; padding has neither."""
    arc_tags = torch.tensor([[[-1.0, 3.0], [-1.0, -1.0]], [[-1.0, -1.0], [-1.0, -1.0]]])
    graph = Relations.gold_graph(arc_tags, torch.tensor([[0, 1], [1, 1]]), torch.tensor([[True, True], [True, False]]))
    assert graph[0].tolist() == [[-1, -1, -1], [-1, -1, 3], [0, -1, -1]]
    assert graph[1].tolist() == [[-1, -1, -1], [0, -1, -1], [-1, -1, -1]]
    labels = torch.where(graph >= 0, Relations.labels(graph, 2).clamp(min=0), -1)
    assert torch.equal(Relations.graph_indices(labels), graph)


def test_relation_loss():
    logits = torch.randn(5, 3, requires_grad=True)
    # Unknown (1) and beyond the parser's own three (5) do not count.
    loss = Relations.loss(logits, torch.tensor([2, 4, 1, 5, 3]), torch.tensor([0, 0, 0, 2, 2]), batch_size=3)
    log_probs = logits.log_softmax(-1)
    close(loss, torch.stack([-log_probs[0, 0] - log_probs[1, 2], torch.zeros(()), -log_probs[4, 1]]))
    loss.sum().backward()
    assert (logits.grad[2:4] == 0).all()
    assert (logits.grad[[0, 1, 4]] != 0).any(-1).all()


@pytest.mark.parametrize("labeled", [True, False])
def test_parser_head_loss(labeled: bool):
    vocab = vocabulary("nsubj", "obj") if labeled else vocabulary()
    head = ParserHead(vocab, DIM, Lazy(BiaffineArcScorer), label_dim=3)
    states = torch.randn(2, 4, DIM)
    mask = torch.tensor([[True] * 4, [True, True, True, False]])
    gold_heads = torch.tensor([[-1, 2, 0, 2], [-1, 2, -1, -1]])
    gold_relations = torch.tensor([[-1, 2, 1, 3], [-1, 3, -1, -1]])
    scores = head(states)
    loss = head.loss(states, scores, mask, gold_heads, gold_relations)
    for b, length in enumerate((4, 3)):
        expected = torch.zeros(())
        for d in range(1, length):
            gold = int(gold_heads[b, d])
            if gold < 0:
                continue
            heads = [h for h in range(length) if h != d]
            expected = expected - scores[b, d, heads].log_softmax(-1)[heads.index(gold)]
            relation = int(gold_relations[b, d])
            if labeled and relation >= 2:
                index = tuple(torch.tensor([x]) for x in (b, d, gold))
                expected = expected - head.labeler(states, index)[0].log_softmax(-1)[relation - 2]
        close(loss[b], expected)
    loss.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_parser_head_relations():
    head = ParserHead(vocabulary("nsubj", "obj", "det"), DIM, Lazy(BiaffineArcScorer), label_dim=3)
    states = torch.randn(2, 4, DIM)
    heads = torch.tensor([[-1, 2, 0, 2], [-1, 0, -1, -1]])
    relations = head.predict_relations(states, heads)
    assert ((relations == -1) == (heads == -1)).all()
    best = head.labeler(states, (torch.tensor([0]), torch.tensor([3]), torch.tensor([2]))).argmax()
    assert relations[0, 3] == best + 2
    assert ParserHead(vocabulary(), DIM, Lazy(BiaffineArcScorer)).predict_relations(states, heads) is None
