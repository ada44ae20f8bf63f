// The size for a real treebank, such as the Universal Dependencies English Web Treebank.
{
  model+: { word_dim:: 100, character_dim:: 32, hidden_size:: 128, num_layers:: 2, dropout: 0.33 },
  // Words seen once are taken as unknown, so that the unknown word has an embedding too.
  vocabulary+: { min_count: { tokens: 2 } },
  data_loader+: { batch_sampler+: { batch_size: 32 } },
  trainer+: { num_epochs: 6 },
}
