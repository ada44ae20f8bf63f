// Binary sentiment of sentences by way of a semantic graph: the settings of Peng et al. (2018), section 4.2. The semantic
// parser comes from an archive, of a model of ../syntactic_then_semantic; a fifth of what it was trained on is interleaved.
// What distinguishes the experiments stands in their own files.
local parsing = import '../syntactic_then_semantic/data.libsonnet';

{
  local seed = std.parseInt(std.extVar('SPIGOT_SEED')),
  local archive = std.extVar('SPIGOT_SEMANTIC_PARSER_ARCHIVE'),
  local word_vectors = std.extVar('SPIGOT_WORD_VECTORS'),
  local word_dim = std.parseInt(std.extVar('SPIGOT_WORD_DIM')),
  local feature_dim = 50,
  local hidden_size = 150,
  random_seed: seed,
  numpy_seed: seed,
  pytorch_seed: seed,

  // The files of the treebank have neither lemmas nor parts of speech; those that a tokenizer gives are used.
  local sentiment = {
    type: 'sst_trees',
    granularity: '2-class',
    token_indexers: {
      words: { type: 'single_id', namespace: 'words' },
      lemmas: { type: 'single_id', namespace: 'lemmas', feature_name: 'lemma_' },
      pos: { type: 'single_id', namespace: 'pos', feature_name: 'pos_' },
    },
    // Those that the parser was trained with.
    parser_token_indexers: parsing.dataset_reader.token_indexers,
  },

  dataset_reader: { type: 'multitask', readers: { sentiment: sentiment, parsing: parsing.dataset_reader } },
  train_data_path: { sentiment: std.extVar('SPIGOT_SST_TRAIN_DATA'), parsing: std.extVar('SPIGOT_TRAIN_DATA') },
  data_loader: {
    type: 'multitask',
    scheduler: {
      type: 'proportional',
      batch_size: 32,
      fractions: { parsing: 0.2 },
      sorting_keys: ['tokens'],
    },
  },

  validation_dataset_reader: sentiment,
  validation_data_path: std.extVar('SPIGOT_SST_VALIDATION_DATA'),
  validation_data_loader: { batch_size: 32 },

  // The parser's vocabulary comes first, so that its embeddings keep their meaning.
  vocabulary: { type: 'extend', directory: archive },
  // With it, the model's archive can be loaded where the parser's is not available.
  include_in_archive: ['semantic_parser.tar.gz'],

  model: {
    type: 'semantic_then_sentiment',
    semantic_parser: { type: 'from_archive', archive_file: archive },
    text_field_embedder: {
      token_embedders: {
        words: {
          type: 'embedding',
          embedding_dim: word_dim,
          pretrained_file: word_vectors,
          vocab_namespace: 'words',
        },
        lemmas: { type: 'embedding', embedding_dim: feature_dim, vocab_namespace: 'lemmas' },
        pos: { type: 'embedding', embedding_dim: feature_dim, vocab_namespace: 'pos' },
      },
    },
    encoder: {
      type: 'padded_lstm',
      input_size: word_dim + 2 * feature_dim,
      hidden_size: hidden_size,
      bidirectional: true,
    },
    structure: { type: 'labeled_arc_graph', projection: 'sequential' },
    hidden_dim: 100,
    dropout: 0.5,
    vector_dropout: 0.2,
  },

  trainer: {
    optimizer: { type: 'adam', lr: 1e-3 },
    num_epochs: 50,
    validation_metric: '+accuracy',
    callbacks: [],
  },
}
