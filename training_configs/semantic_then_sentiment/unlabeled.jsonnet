// SPIGOT over arcs without labels.
(import 'spigot.jsonnet') {
  model+: { structure: 'arc_graph' },
}
