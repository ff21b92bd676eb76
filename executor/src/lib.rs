//! A volunteer's task runtime: decodes, checks and runs a plan, and encodes its output canonically.
