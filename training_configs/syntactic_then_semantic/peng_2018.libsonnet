// What the parsers of peng_2018.jsonnet and their pruners share: what they read, and the make of an encoder.
local word_dim = std.parseInt(std.extVar('SPIGOT_WORD_DIM'));

local indexers(pos) = {
  tokens: { type: 'single_id', lowercase_tokens: true },
  lemmas: { type: 'single_id', namespace: 'lemmas', feature_name: 'lemma_' },
  pos: { type: 'single_id', namespace: 'pos', feature_name: pos },
};

{
  encoder(hidden_size, num_layers, feature_dim=50):: {
    text_field_embedder: {
      token_embedders: {
        tokens: {
          type: 'embedding_with_word_dropout',
          alpha: 0.25,
          embedding_dim: word_dim,
          pretrained_file: std.extVar('SPIGOT_WORD_VECTORS'),
        },
        lemmas: { type: 'embedding', embedding_dim: feature_dim, vocab_namespace: 'lemmas' },
        pos: { type: 'embedding', embedding_dim: feature_dim, vocab_namespace: 'pos' },
      },
    },
    encoder: {
      type: 'padded_lstm',
      input_size: word_dim + 2 * feature_dim,
      hidden_size: hidden_size,
      num_layers: num_layers,
      bidirectional: true,
    },
  },

  data: {
    dataset_reader+: {
      readers+: {
        // The same tags, from the Penn Treebank, in both.
        syntax+: { token_indexers: indexers('tag_') },
        semantics+: { token_indexers: indexers('pos_') },
      },
    },
    validation_dataset_reader+: { token_indexers: indexers('pos_') },
    // Of the training data alone, so that the counts for the word dropout are.
    datasets_for_vocab_creation: ['train'],
  },
}
