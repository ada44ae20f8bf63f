// From text to states: word and character embeddings and a BiLSTM, sized by the caller.
{
  local encoder = self,
  word_dim:: 50,
  character_dim:: 16,
  hidden_size:: 64,
  num_layers:: 1,

  text_field_embedder: {
    token_embedders: {
      tokens: { type: 'embedding', embedding_dim: encoder.word_dim },
      characters: {
        type: 'character_encoding_of_distinct_words',
        embedding: { embedding_dim: 16, vocab_namespace: 'token_characters' },
        encoder: {
          type: 'cnn',
          embedding_dim: 16,
          num_filters: encoder.character_dim,
          ngram_filter_sizes: [3],
        },
      },
    },
  },
  encoder: {
    type: 'padded_lstm',
    input_size: encoder.word_dim + encoder.character_dim,
    hidden_size: encoder.hidden_size,
    num_layers: encoder.num_layers,
    bidirectional: true,
  },
  dropout: 0.25,
}
