// The recipe of the parser that ships as en_ewt: trees and enhanced graphs of Universal Dependencies, from words and
// characters alone. SPIGOT_WORD_VECTORS names a text file of word vectors, most frequent word first
// (scripts/fetch_pretrained.py writes one for English); an empty string does without.
local seed = std.parseInt(std.extVar('SPIGOT_SEED'));
local vectors = std.extVar('SPIGOT_WORD_VECTORS');
local vector_dim = if vectors == '' then 0 else std.parseInt(std.extVar('SPIGOT_WORD_DIM'));
// The name of what depends on the vectors; a field without a name is left out.
local with_vectors(name) = if vectors == '' then null else name;
local word_dim = 100;
local character_dim = 100;
local hidden_size = 256;

{
  random_seed: seed,
  numpy_seed: seed,
  pytorch_seed: seed,

  dataset_reader: {
    type: 'conllu_graphs',
    labels: 'full',
    token_indexers: {
      tokens: { type: 'single_id', lowercase_tokens: true },
      [with_vectors('vectors')]: { type: 'single_id', namespace: 'vectors', lowercase_tokens: true },
      characters: {
        type: 'characters',
        // The ends of a word are letters of their own: prefixes and suffixes.
        character_tokenizer: { start_tokens: ['<w>'], end_tokens: ['</w>'] },
        min_padding_length: 5,
      },
    },
  },
  train_data_path: std.extVar('SPIGOT_TRAIN_DATA'),
  validation_data_path: std.extVar('SPIGOT_VALIDATION_DATA'),
  datasets_for_vocab_creation: ['train'],

  vocabulary: {
    min_count: { tokens: 2, token_characters: 3, arc_relations: 3 },
    // All words of the treebank that have a vector, and the 40,000 most frequent ones of the file.
    [with_vectors('pretrained_files')]: { vectors: vectors },
    only_include_pretrained_words: true,
    [with_vectors('min_pretrained_embeddings')]: { vectors: 40000 },
  },

  data_loader: {
    batch_sampler: { type: 'max_tokens_sampler', max_tokens: 800, sorting_keys: ['tokens'], padding_noise: 0.1 },
  },
  validation_data_loader: {
    batch_sampler: { type: 'bucket', batch_size: 64, sorting_keys: ['tokens'], padding_noise: 0.0 },
  },

  model: {
    type: 'syntactic_then_semantic',
    text_field_embedder: {
      type: 'basic_with_embedding_dropout',
      dropout: 0.2,
      token_embedders: {
        tokens: { type: 'embedding_with_word_dropout', embedding_dim: word_dim },
        [with_vectors('vectors')]: {
          type: 'embedding',
          embedding_dim: vector_dim,
          pretrained_file: vectors,
          vocab_namespace: 'vectors',
          trainable: false,
        },
        characters: {
          type: 'character_encoding_of_distinct_words',
          embedding: { embedding_dim: 32, vocab_namespace: 'token_characters' },
          encoder: {
            type: 'cnn',
            embedding_dim: 32,
            num_filters: 50,
            ngram_filter_sizes: [2, 3, 4, 5],
            output_dim: character_dim,
          },
        },
      },
    },
    encoder: {
      type: 'padded_lstm',
      input_size: word_dim + vector_dim + character_dim,
      hidden_size: hidden_size,
      num_layers: 3,
      dropout: 0.25,
      bidirectional: true,
    },
    dropout: 0.25,
    structure: { type: 'projective_tree', single_root: true },
    estimator: 'pipeline',
    syntactic_head: { arc_scorer: { type: 'biaffine', arc_dim: 400, dropout: 0.25 } },
    graph_head: {
      arc_scorer: { type: 'biaffine', arc_dim: 400, dropout: 0.25 },
      label_dim: 64,
      // As enhanced Universal Dependencies ask for.
      connected: true,
    },
    initializer: {
      regexes: [
        ['encoder.*weight_ih.*', 'xavier_uniform'],
        ['encoder.*weight_hh.*', 'orthogonal'],
        ['encoder.*bias_ih.*', 'zero'],
        ['encoder.*bias_hh.*', 'lstm_hidden_bias'],
      ],
    },
  },

  trainer: {
    optimizer: { type: 'adam', lr: 2e-3, betas: [0.9, 0.9] },
    learning_rate_scheduler: { type: 'linear_with_warmup', warmup_steps: 200 },
    num_epochs: 24,
    grad_norm: 5.0,
    validation_metric: '+labeled_f1',
    // Checkpoints are large.
    checkpointer: { keep_most_recent_by_count: 1 },
  },
}
