//! From SQL to a pinned physical plan: sessions, tables, determinism.
