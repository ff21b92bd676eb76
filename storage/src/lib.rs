//! Tables as erasure-coded, content-addressed shards: stores, manifests, placement, leases.
