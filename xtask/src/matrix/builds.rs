//! Builds for the oldest and the newest processor of this kind that this machine is.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::ci::must;

/// A build of `conun` for one processor.
pub(super) struct Build {
    /// As `-C target-cpu` names it.
    cpu: &'static str,
}

impl Build {
    /// The oldest x86-64 and the newest level that this machine runs; elsewhere the compiler's least and this machine's. What
    /// the programs of all other networks are built for is left out.
    pub(super) fn all() -> Vec<Self> {
        let oldest = if cfg!(target_arch = "x86_64") { "x86-64" } else { "generic" };
        let newest = newest();
        if cfg!(target_arch = "x86_64") && newest != "x86-64-v4" {
            println!("           x86-64-v4 does not run here: {newest} stands for it");
        }
        // This program was built with the same flags as those beside it. SSE3 came after the oldest x86-64.
        let ours = cfg!(all(target_arch = "x86_64", not(target_feature = "sse3")));
        if ours {
            println!("           the networks above ran the build for x86-64");
        }
        [oldest, newest].into_iter().filter(|cpu| !ours || *cpu != "x86-64").map(|cpu| Self { cpu }).collect()
    }

    pub(super) fn name(&self) -> String {
        format!("build for {}", self.cpu)
    }

    /// Builds into a folder beside the programs of `release`, where the next run finds it, and tells where the programs are.
    pub(super) fn make(&self, release: &Path) -> Result<PathBuf> {
        let dir = release.with_file_name(format!("matrix-{}", self.cpu));
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--release", "--locked", "-p", "conun-cli", "--target-dir"]).arg(&dir);
        // No debug information: it is half of the time and most of the disk.
        cargo.env("RUSTFLAGS", format!("-C target-cpu={}", self.cpu)).env("CARGO_PROFILE_RELEASE_DEBUG", "0");
        must(&mut cargo)?;
        Ok(dir.join("release"))
    }
}

#[cfg(target_arch = "x86_64")]
fn newest() -> &'static str {
    let v3 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("movbe");
    let v4 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (v3, v4) {
        (true, true) => "x86-64-v4",
        (true, false) => "x86-64-v3",
        (false, _) => "x86-64-v2",
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn newest() -> &'static str {
    "native"
}
