//! The execution profile: the named, versioned set of choices that make identical tasks give identical bytes.
//!
//! It is data, so that the planner (which plans under it) and the executor (which runs under it) cannot disagree. Its
//! hash is in every task and every receipt; a node with another profile gets no such task. Each pin names the
//! divergence that it closes; docs/ARCHITECTURE.md, "Determinism", tells them at length.

/// Rows in a canonical batch, and in every batch that an operator emits.
pub const BATCH_ROWS: usize = 8192;

/// Fewest partitions of a shuffle.
pub const LEAST_SHUFFLE_PARTITIONS: usize = 4;

/// Stored bytes of a statement's largest table for which its shuffles have one partition: so large a share is a task of
/// seconds, of which little is lost with a node. It goes by the data alone: a plan that followed the number of nodes or
/// cores would order rows otherwise on another network.
pub const SHUFFLE_BYTES: u64 = 16 << 20;

/// Most partitions of a shuffle, and of a scan.
pub const MAX_PARTITIONS: usize = 256;

/// Partitions of every shuffle of a statement whose largest table has so many stored bytes.
#[must_use]
pub fn shuffle_partitions(bytes: u64) -> usize {
    usize::try_from(bytes.div_ceil(SHUFFLE_BYTES))
        .unwrap_or(MAX_PARTITIONS)
        .clamp(LEAST_SHUFFLE_PARTITIONS, MAX_PARTITIONS)
}

/// Name and version, for people.
pub const NAME: &str = "conun-8";

/// How floats are summed and which libm computes: `conun_functions::VERSION` (a test in executor/ compares them). Sums
/// are exact until one last rounding; DataFusion's own follow the order of rows and the width of vectors.
pub const FUNCTIONS: &str = "exact-sums-1, libm-0.2.16";

/// The compiler's release: rows that tie are ordered by the unstable sorts and the heaps of its standard library.
pub const RUSTC: &str = env!("CONUN_RUSTC");

/// Names and versions of the crates that plan statements and compute rows, as this build has them.
pub fn crates() -> impl Iterator<Item = (&'static str, &'static str)> {
    CRATES.split(',').filter_map(|of| of.rsplit_once(' ')?.0.split_once(' '))
}

/// `name version checksum,name version checksum`, sorted: the build script has them from `Cargo.lock`.
const CRATES: &str = env!("CONUN_CRATES");

/// DataFusion's settings under this profile.
pub const SETTINGS: &[(&str, &str)] = &[
    ("datafusion.execution.batch_size", "8192"),
    ("datafusion.execution.target_partitions", "4"),
    // One partition is a fixed run of shards; never a byte range of a file.
    ("datafusion.optimizer.repartition_file_scans", "false"),
    // An idle stream would otherwise take files from a busy one: row order would follow timing.
    ("datafusion.execution.enable_file_stream_work_stealing", "false"),
    // Round-robin repartitioning interleaves batches by arrival.
    ("datafusion.optimizer.enable_round_robin_repartition", "false"),
    // InterleaveExec reads its inputs at random; UnionExec keeps them apart.
    ("datafusion.optimizer.prefer_existing_union", "true"),
    // A filter learnt while running prunes by timing.
    ("datafusion.optimizer.enable_dynamic_filter_pushdown", "false"),
    // Its node in a plan hands a value to others through memory, which does not reach another stage; a join does.
    ("datafusion.optimizer.enable_physical_uncorrelated_scalar_subquery", "false"),
    // Partial aggregation that gives up early decides by what it has seen so far: by batch boundaries.
    ("datafusion.execution.skip_partial_aggregation_probe_ratio_threshold", "1.1"),
    // Beyond any memory: a sort concatenates its input and sorts it once. Below, it would sort each batch and merge them: ties
    // would follow the boundaries of batches, and which of the two it does would follow the capacity of their buffers.
    ("datafusion.execution.sort_in_place_threshold_bytes", "18446744073709551615"),
    // Views hold on to whole buffers: one sort of all rows reserves the square of its input (docs/BENCHMARKS.md, "Determinism").
    ("datafusion.execution.parquet.schema_force_view_types", "false"),
    ("datafusion.sql_parser.map_string_types_to_utf8view", "false"),
    // The local zone of a coordinator must not colour an answer.
    ("datafusion.execution.time_zone", "+00:00"),
];

/// Operators that tasks are made of: what is not listed interleaves by timing, reads what no node has, or was not looked
/// at. Nodes look closer at some of them (executor/, `whitelist`); exchanges end stages and are no operators of a task.
pub const OPERATORS: &[&str] = &[
    "AggregateExec",
    "BoundedWindowAggExec",
    "CoalesceBatchesExec",
    "CoalescePartitionsExec",
    "CooperativeExec",
    "CrossJoinExec",
    "DataSourceExec",
    "EmptyExec",
    "EquivalenceBarrierExec",
    "FilterExec",
    "GlobalLimitExec",
    "HashJoinExec",
    "LocalLimitExec",
    "NestedLoopJoinExec",
    "PartialSortExec",
    "PlaceholderRowExec",
    "ProjectionExec",
    "ScalarSubqueryExec",
    "SortExec",
    "SortExec(TopK)",
    "SortMergeJoinExec",
    "SortPreservingMergeExec",
    "UnionExec",
    "UnnestExec",
    "WindowAggExec",
];

/// BLAKE3 of the profile's name, versions, functions, settings, operators and partitions; computed once, as every offer and
/// every volunteer is compared with it.
#[must_use]
pub fn hash() -> [u8; 32] {
    static HASH: std::sync::LazyLock<[u8; 32]> = std::sync::LazyLock::new(|| hash_of(RUSTC, CRATES));
    *HASH
}

fn hash_of(rustc: &str, crates: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("conun execution profile v2");
    for text in [NAME, env!("CARGO_PKG_VERSION"), FUNCTIONS, rustc, crates] {
        hasher.update(text.as_bytes()).update(&[0]);
    }
    for (key, value) in SETTINGS {
        hasher.update(key.as_bytes()).update(b"=").update(value.as_bytes()).update(&[0]);
    }
    for operator in OPERATORS {
        hasher.update(operator.as_bytes()).update(&[0]);
    }
    hasher.update(&SHUFFLE_BYTES.to_le_bytes()).update(&(MAX_PARTITIONS as u64).to_le_bytes());
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_and_settings_agree() {
        let get = |key| SETTINGS.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
        assert_eq!(get("datafusion.execution.batch_size"), Some(BATCH_ROWS.to_string().as_str()));
        assert_eq!(get("datafusion.execution.target_partitions"), Some(LEAST_SHUFFLE_PARTITIONS.to_string().as_str()));
    }

    #[test]
    fn other_versions_are_another_profile() {
        let newer = CRATES.replace(",datafusion ", ",datafusion 1");
        assert_ne!(newer, CRATES);
        let hashes = [hash(), hash_of(RUSTC, &newer), hash_of("1.0.0", CRATES)];
        assert_eq!(std::collections::BTreeSet::from(hashes).len(), 3, "{hashes:?}");
    }

    #[test]
    fn the_versions_are_those_of_this_build() {
        let lock = include_str!("../../Cargo.lock");
        for (name, version) in crates() {
            assert!(lock.contains(&format!("name = \"{name}\"\nversion = \"{version}\"\n")), "{name} {version}");
        }
        // What plans, encodes plans, computes, sorts, hashes, matches and tells the time.
        for name in
            ["ballista-core", "datafusion-sql", "sqlparser", "datafusion-proto", "arrow-arith", "arrow-ord", "foldhash"]
        {
            assert!(crates().any(|(found, _)| found == name), "{name} decides bits");
        }
        for name in ["hashbrown", "regex", "chrono", "chrono-tz", "parquet", "arrow-ipc", "libm"] {
            assert!(crates().any(|(found, _)| found == name), "{name} decides bits");
        }
        assert!(FUNCTIONS.ends_with(&format!("libm-{}", crates().find(|(name, _)| *name == "libm").unwrap().1)));
        assert!(RUSTC.split('.').count() >= 3, "{RUSTC}");
    }

    #[test]
    fn shuffles_follow_the_bytes_of_the_largest_table() {
        let partitions = [0, 1, 64 << 20, (64 << 20) + 1, 181_677_476, 80 << 30, u64::MAX].map(shuffle_partitions);
        assert_eq!(partitions, [4, 4, 4, 5, 11, 256, 256]);
    }
}
