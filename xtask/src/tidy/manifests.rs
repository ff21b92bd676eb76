//! Which crate may depend on which, and what every manifest must say.

use toml::{Table, Value};

use super::features::FEATURES;
use crate::repo::{Finding, TextFile};

/// Workspace crates that a crate may depend on. Development dependencies are free: tests may join parts that the
/// product keeps apart. `None`: any.
const ARROWS: &[(&str, Option<&[&str]>)] = &[
    ("conun-types", Some(&[])),
    ("conun-trust", Some(&["conun-types"])),
    ("conun-sim", Some(&["conun-types", "conun-trust"])),
    ("conun-functions", Some(&[])),
    ("conun-storage", Some(&["conun-types"])),
    ("conun-network", Some(&["conun-types"])),
    ("conun-planner", Some(&["conun-types", "conun-functions", "conun-executor"])),
    ("conun-executor", Some(&["conun-types", "conun-functions"])),
    ("conun-node", Some(&["conun-types", "conun-storage", "conun-executor"])),
    ("conun-engine", Some(&["conun-types", "conun-storage", "conun-planner", "conun-executor", "conun-trust"])),
    ("conun-chain", Some(&["conun-types"])),
    ("conun-api", Some(&["conun-types", "conun-storage", "conun-engine"])),
    ("conun-cli", None),
    ("conun-sql-examples", Some(&[])),
    ("conun-benches", None),
    ("conun-features", Some(&[])),
    ("xtask", Some(&["conun-sql-examples"])),
];

/// Foreign crates (by prefix) that only one folder may name, in any kind of dependency; beside it
/// [`FEATURES`] names them all, and [`MEASURES`] those that it measures.
const ONLY_IN: &[(&str, &str)] = &[
    ("libp2p", "network/"),
    ("alloy", "contracts/chain/"),
    ("ballista", "engine/"),
    ("tonic", "api/"),
    ("revm", "contracts/chain/"),
];

/// The folder whose development dependencies are free: what is not in the product is measured there.
const MEASURES: &str = "benches/";

/// Foreign crates that a workspace crate must do without.
const BANNED: &[(&str, &str)] = &[
    ("conun-types", "tokio"),
    ("conun-types", "datafusion"),
    ("conun-storage", "datafusion"),
    ("conun-network", "datafusion"),
    ("xtask", "datafusion"),
];

pub(crate) fn check(files: &[TextFile]) -> Vec<Finding> {
    files.iter().filter(|f| f.path.ends_with("/Cargo.toml")).flat_map(check_one).collect()
}

fn check_one(file: &TextFile) -> Vec<Finding> {
    let manifest = match file.text.parse::<Table>() {
        Ok(manifest) => manifest,
        Err(error) => return vec![Finding::new(&file.path, 1, format!("not TOML: {}", error.message()))],
    };
    let at = |needle: &str| file.lines().find(|(_, line)| line.contains(needle)).map_or(1, |(number, _)| number);
    let mut findings: Vec<Finding> = dependencies(&manifest)
        .into_iter()
        .filter_map(|d| complaint(&manifest, &file.path, &d).map(|m| Finding::new(&file.path, at(&d.name), m)))
        .collect();
    findings.extend(missing_settings(&manifest).into_iter().map(|m| Finding::new(&file.path, 1, m)));
    findings
}

/// A dependency by name.
pub(super) struct Dependency {
    pub(super) name: String,
    development: bool,
}

/// All dependencies, those of targets included.
pub(super) fn dependencies(manifest: &Table) -> Vec<Dependency> {
    let targets = manifest.get("target").and_then(Value::as_table);
    let tables =
        std::iter::once(manifest).chain(targets.into_iter().flat_map(Table::values).filter_map(Value::as_table));
    let kinds = [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)];
    tables
        .flat_map(|table| kinds.map(|(key, development)| (table.get(key).and_then(Value::as_table), development)))
        .filter_map(|(found, development)| found.map(|found| (found, development)))
        .flat_map(|(found, development)| found.keys().map(move |name| Dependency { name: name.clone(), development }))
        .collect()
}

pub(super) fn package_name(manifest: &Table) -> &str {
    manifest.get("package").and_then(|p| p.get("name")).and_then(Value::as_str).unwrap_or_default()
}

/// What is wrong with a dependency, if anything.
fn complaint(manifest: &Table, path: &str, dependency: &Dependency) -> Option<String> {
    let (package, name) = (package_name(manifest), dependency.name.as_str());
    let elsewhere = |(prefix, home): &&(&str, &str)| name.starts_with(prefix) && !path.starts_with(home);
    let measured = dependency.development && path.starts_with(MEASURES);
    if package != FEATURES
        && !measured
        && let Some((_, home)) = ONLY_IN.iter().find(elsewhere)
    {
        return Some(format!("{name} may only be used in {home}"));
    }
    if !dependency.development && BANNED.contains(&(package, name)) {
        return Some(format!("{package} must do without {name}"));
    }
    if dependency.development || name == FEATURES || !name.starts_with("conun-") {
        return None;
    }
    match ARROWS.iter().find(|(from, _)| *from == package) {
        None => Some(format!("{package} is not in the table of dependency arrows (xtask/src/tidy/manifests.rs)")),
        Some((_, Some(allowed))) if !allowed.contains(&name) => {
            Some(format!("{package} must not depend on {name}: dependencies point from cli to types"))
        }
        Some(_) => None,
    }
}

/// Settings that every crate takes from the workspace.
fn missing_settings(manifest: &Table) -> Vec<String> {
    let inherits =
        |value: Option<&Value>| value.and_then(|v| v.get("workspace")).and_then(Value::as_bool) == Some(true);
    let package = manifest.get("package");
    let mut missing = Vec::new();
    if manifest.get("lints").and_then(|l| l.get("workspace")).and_then(Value::as_bool) != Some(true) {
        missing.push("[lints] workspace = true is missing".to_owned());
    }
    for key in ["license", "edition", "rust-version", "version", "publish"] {
        if !inherits(package.and_then(|p| p.get(key))) {
            missing.push(format!("{key}.workspace = true is missing"));
        }
    }
    if package.and_then(|p| p.get("description")).is_none() {
        missing.push("a description is missing".to_owned());
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: &str = "description = 'x'\nlicense.workspace = true\nedition.workspace = true\n\
        rust-version.workspace = true\nversion.workspace = true\npublish.workspace = true\n[lints]\nworkspace = true\n";

    fn findings(folder: &str, package: &str, rest: &str) -> Vec<String> {
        let text = format!("[package]\nname = \"{package}\"\n{SETTINGS}{rest}");
        let file = TextFile::new(&format!("{folder}/Cargo.toml"), &text);
        check(&[file]).into_iter().map(|f| f.message).collect()
    }

    #[test]
    fn arrows_point_one_way() {
        for (folder, package, rest, wrong) in [
            ("engine", "conun-engine", "[dependencies]\nconun-types.workspace = true\n", false),
            ("engine", "conun-engine", "[dependencies]\nconun-network.workspace = true\n", true),
            ("engine", "conun-engine", "[dev-dependencies]\nconun-network.workspace = true\n", false),
            ("storage", "conun-storage", "[target.'cfg(unix)'.dependencies]\nconun-engine.workspace = true\n", true),
            ("types", "conun-types", "[dependencies]\ntokio = '1'\n", true),
            ("cli", "conun-cli", "[dependencies]\nconun-network.workspace = true\n", false),
            ("node", "conun-node", "[dev-dependencies]\nlibp2p-stream = '1'\n", true),
            ("network", "conun-network", "[dependencies]\nlibp2p-stream = '1'\n", false),
            ("benches", "conun-benches", "[dependencies]\nballista-core = '1'\n", true),
            ("benches", "conun-benches", "[dev-dependencies]\nballista-core = '1'\n", false),
            ("engine", "conun-engine", "[dependencies]\nconun-features.workspace = true\n", false),
            ("features", "conun-features", "[dependencies]\nlibp2p = '1'\n", false),
            ("new", "conun-new", "[dependencies]\nconun-types.workspace = true\n", true),
        ] {
            assert_eq!(!findings(folder, package, rest).is_empty(), wrong, "{package} {rest}");
        }
    }

    #[test]
    fn settings_come_from_the_workspace() {
        assert_eq!(findings("cli", "conun-cli", ""), Vec::<String>::new());
        let bare = TextFile::new("cli/Cargo.toml", "[package]\nname = 'conun-cli'\nlicense = 'MIT'\n");
        assert_eq!(check(&[bare]).len(), 7);
        assert_eq!(check(&[TextFile::new("cli/Cargo.toml", "[")])[0].line, 1);
    }

    #[test]
    fn a_finding_points_at_its_line() {
        let text = format!("[package]\nname = \"conun-types\"\n{SETTINGS}[dependencies]\ntokio = '1'\n");
        let line = check(&[TextFile::new("types/Cargo.toml", &text)])[0].line;
        assert_eq!(text.lines().nth(line - 1), Some("tokio = '1'"));
    }
}
