//! A volunteer: accepts orders, fetches inputs, has them run, keeps blocks, signs receipts.
