//! Narrow and whole builds see the same features: every crate has `conun-features` beside it, which names every foreign
//! crate. One that is forgotten costs a second build of DataFusion (docs/BUILD.md).

use std::collections::BTreeSet;

use toml::Table;

use super::manifests::{dependencies, package_name};
use crate::repo::{Finding, TextFile};

/// The crate that names them all.
pub(super) const FEATURES: &str = "conun-features";
/// Crates that are built on their own, before DataFusion is.
const APART: &[&str] = &[FEATURES, "xtask"];

pub(crate) fn check(files: &[TextFile]) -> Vec<Finding> {
    let manifests: Vec<(&TextFile, Table)> = files
        .iter()
        .filter(|f| f.path.ends_with("/Cargo.toml"))
        .filter_map(|file| Some((file, file.text.parse::<Table>().ok()?)))
        .collect();
    let Some((_, features)) = manifests.iter().find(|(_, manifest)| package_name(manifest) == FEATURES) else {
        return Vec::new();
    };
    let named: BTreeSet<String> = dependencies(features).into_iter().map(|d| d.name).collect();
    let others = manifests.iter().filter(|(_, manifest)| !APART.contains(&package_name(manifest)));
    others.flat_map(|(file, manifest)| check_one(file, manifest, &named)).collect()
}

fn check_one(file: &TextFile, manifest: &Table, named: &BTreeSet<String>) -> Vec<Finding> {
    let used: BTreeSet<String> = dependencies(manifest).into_iter().map(|d| d.name).collect();
    let missing = (!used.contains(FEATURES)).then(|| format!("{FEATURES} is missing among the dependencies"));
    let foreign = used.iter().filter(|name| !name.starts_with("conun-") && !named.contains(*name));
    let unnamed = foreign.map(|name| format!("{name} is missing in features/Cargo.toml"));
    missing.into_iter().chain(unnamed).map(|told| Finding::new(&file.path, 1, told)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgotten_crates_are_found() {
        let features =
            TextFile::new("features/Cargo.toml", "[package]\nname = 'conun-features'\n[dependencies]\ntokio = '1'");
        let with = |dependencies: &str| {
            let text = format!("[package]\nname = 'conun-node'\n{dependencies}");
            let found = check(&[features.clone(), TextFile::new("node/Cargo.toml", &text)]);
            found.into_iter().map(|f| f.message).collect::<Vec<_>>()
        };
        let joined = "[dev-dependencies]\nconun-features.workspace = true\n";
        assert!(with(&format!("[dependencies]\ntokio = '1'\nconun-types = '1'\n{joined}")).is_empty());
        assert_eq!(with(&format!("[dependencies]\nlibc = '1'\n{joined}")), ["libc is missing in features/Cargo.toml"]);
        assert_eq!(with("").len(), 1);
    }
}
