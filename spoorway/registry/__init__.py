"""Schema documents by their Iglu URI: bundled, from folders, or fetched from static registries and kept.

Call order: `Lookup(folders, cache)` is the `SchemaLookup` of every pipeline and target and never waits for a network.
`Fetching.run` beside it, in a thread of its own, asks the registries for what was looked up in vain. `ComeBack.step`, in a
target's own thread, takes what changed to its pipeline and views, and replays the failed events that waited.
"""
