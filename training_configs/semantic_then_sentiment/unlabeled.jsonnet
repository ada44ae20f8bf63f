// As latent.jsonnet, over arcs without labels.
(import 'latent.jsonnet') {
  model+: { structure: 'arc_graph' },
}
