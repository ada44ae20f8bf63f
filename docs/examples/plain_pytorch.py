"""
A latent tree in a plain PyTorch program: no AllenNLP model, config or trainer.

The task: does the word behind the query word begin with a vowel? A word's representation says nothing of its
neighbours, so only a tree in which the query word hangs on the word behind it can tell. No tree is ever shown: with the
estimator `Pipeline`, through which nothing is learned of trees, the accuracy stays near .82, here it reaches .98.

    python docs/examples/plain_pytorch.py
"""

import torch
from torch.utils.data import DataLoader, TensorDataset

from spigot_allennlp.estimators import SpigotCrossEntropy
from spigot_allennlp.structures import ProjectiveTree

NUM_WORDS, QUERY, LENGTH, DIM = 26, 26, 6, 16
VOWELS = torch.tensor([0, 4, 8, 14, 20])


def make_data(number: int) -> TensorDataset:
    """Sentences `(number, LENGTH)`, whose lengths vary, the mask of each with its ROOT, and the answers `(number,)`."""
    words = torch.randint(NUM_WORDS, (number, LENGTH))
    lengths = torch.randint(3, LENGTH + 1, (number,))
    query = (torch.rand(number) * (lengths - 1)).long()
    rows = torch.arange(number)
    # Half of the answers are yes.
    behind = torch.where(torch.rand(number) < 0.5, VOWELS[torch.randint(5, (number,))], words[rows, query + 1])
    words[rows, query + 1] = behind
    words[rows, query] = QUERY
    # ROOT is the first column of the mask, and true in every row.
    mask = torch.arange(LENGTH + 1) <= lengths.unsqueeze(1)
    return TensorDataset(words, mask, torch.isin(behind, VOWELS).long())


class LatentTreeClassifier(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(NUM_WORDS + 1, DIM)
        self.root = torch.nn.Parameter(torch.zeros(DIM))
        self.arc_scorer = torch.nn.Bilinear(DIM, DIM, 1)
        # One number for each distance between dependent and head.
        self.distance = torch.nn.Parameter(torch.zeros(2 * LENGTH + 1))
        self.hidden = torch.nn.Linear(2 * DIM, 32)
        self.output = torch.nn.Linear(32, 2)
        self.structure = ProjectiveTree(single_root=False)
        self.estimator = SpigotCrossEntropy(step_size=1.0)

    def forward(self, words: torch.Tensor, mask: torch.Tensor, answers: torch.Tensor):
        # shape: (batch, 1 + words, dim), ROOT first
        states = torch.cat([self.root.expand(len(words), 1, -1), self.embedding(words)], dim=1)
        size = states.size(1)
        pairs = torch.broadcast_tensors(states.unsqueeze(2), states.unsqueeze(1))
        position = torch.arange(size)
        # shape: (batch, dependents, heads)
        scores = self.arc_scorer(*(one.contiguous() for one in pairs)).squeeze(-1)
        scores = scores + self.distance[position.unsqueeze(1) - position + LENGTH]

        def downstream(tree: torch.Tensor):
            both = torch.cat([states, tree @ states], dim=-1)
            hidden = torch.relu(self.hidden(both)) * mask.unsqueeze(-1)
            logits = self.output(hidden.sum(1))
            loss = torch.nn.functional.cross_entropy(logits, answers, reduction="none")
            return {"logits": logits, "instance_loss": loss}

        return self.estimator(scores, mask, self.structure, downstream)


def main(num_epochs: int = 5) -> float:
    """Trains, and gives the accuracy on new sentences."""
    torch.manual_seed(0)
    training, validation = DataLoader(make_data(3000), batch_size=50, shuffle=True), make_data(500)
    model = LatentTreeClassifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    accuracy = 0.0
    for epoch in range(num_epochs):
        model.train()
        for words, mask, answers in training:
            optimizer.zero_grad()
            model(words, mask, answers).instance_loss.mean().backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            output = model(*validation.tensors)
        accuracy = (output.outputs["logits"].argmax(-1) == validation.tensors[2]).float().mean().item()
        print(f"epoch {epoch}: loss {output.instance_loss.mean():.3f}, accuracy {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main()
