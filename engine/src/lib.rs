//! The coordinator: stages, replicas, verdicts, lineage, jobs.
