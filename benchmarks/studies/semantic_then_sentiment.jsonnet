// Binary SST by way of semantic graphs of a parser that was trained on EWT (`benchmarks/treebank.py`), few epochs and word vectors
// from a random start.
local embedder = 'model.text_field_embedder.token_embedders.words.';
{
  estimators: [
    'pipeline',
    'ste',
    { type: 'spigot', max_gradient_norm: 0.15625 },
    'marginals',
  ],
  baselines: ['training_configs/semantic_then_sentiment/none.jsonnet'],
  overrides: {
    [embedder + 'pretrained_file']: [null],
    'trainer.num_epochs': [3],
  },
  seeds: [1],
}
