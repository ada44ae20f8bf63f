// Run it from the repository's root.
{
  dataset_reader: { type: 'reviews' },
  train_data_path: 'docs/examples/rationale/train.jsonl',
  validation_data_path: 'docs/examples/rationale/dev.jsonl',
  data_loader: { batch_size: 16, shuffle: true },
  model: {
    type: 'rationale_classifier',
    text_field_embedder: { token_embedders: { tokens: { type: 'embedding', embedding_dim: 16 } } },
    encoder: { type: 'lstm', input_size: 16, hidden_size: 16, bidirectional: true },
    structure: 'span',
    estimator: 'spigot',
  },
  trainer: {
    optimizer: { type: 'adam', lr: 0.01 },
    num_epochs: 10,
    validation_metric: '+accuracy',
  },
}
