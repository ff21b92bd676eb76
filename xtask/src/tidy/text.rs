//! Words that no tracked file may hold: paths of one machine, addresses of package registries, marks of unfinished
//! work and of unfinished merges.

use crate::repo::{Finding, TextFile};

/// Files that are made by others or hold data.
const EXEMPT: &[&str] = &["Cargo.lock", "LICENSE", "sql-examples/tpch/", "sql-examples/text/lines.csv"];

// The words are put together here, so that this file does not hold them itself.
/// Folders of a particular machine, where they begin a path.
const MACHINE: &[&str] = &[concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];
/// Hosts of package registries: which one is used is the machine's business.
const REGISTRIES: &[&str] = &[
    concat!("index.", "crates.io"),
    concat!("static.", "crates.io"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("registry.", "npmjs.org"),
    concat!("deb.", "debian.org"),
];
/// Unfinished work, in code.
const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("to", "do!"), concat!("db", "g!")];
/// What git leaves in a file that could not be merged.
const CONFLICT: &[&str] = &[concat!("<<<<", "<<< "), concat!(">>>>", ">>> ")];

pub(crate) fn check(files: &[TextFile]) -> Vec<Finding> {
    files.iter().filter(|f| !EXEMPT.iter().any(|path| f.path.starts_with(path))).flat_map(check_one).collect()
}

fn check_one(file: &TextFile) -> Vec<Finding> {
    let is_code =
        ["rs", "py", "sh", "toml", "sql"].iter().any(|e| file.has_extension(e)) || file.path.starts_with(".ci/");
    file.lines()
        .filter_map(|(number, line)| complaint(line, is_code).map(|told| Finding::new(&file.path, number, told)))
        .collect()
}

fn complaint(line: &str, is_code: bool) -> Option<String> {
    if let Some(path) = MACHINE.iter().find(|path| begins_a_path(line, path)) {
        return Some(format!("a path of one machine: {path}"));
    }
    if let Some(host) = REGISTRIES.iter().find(|host| line.contains(**host)) {
        return Some(format!("the address of a package registry: {host}"));
    }
    if CONFLICT.iter().any(|mark| line.starts_with(mark)) {
        return Some("a conflict was not resolved".to_owned());
    }
    let unfinished = UNFINISHED.iter().find(|word| is_code && line.contains(**word))?;
    Some(format!("unfinished: {unfinished}"))
}

/// Whether `path` stands in `line` as the beginning of an absolute path, not inside a longer one or an address.
fn begins_a_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "/._-~}*".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, line: &str) -> usize {
        check(&[TextFile::new(path, line)]).len()
    }

    #[test]
    fn forbidden_words_are_found() {
        let machine = format!("let x = \"{}me/.cache\";", MACHINE[0]);
        for (path, line, expected) in [
            ("a/src/x.rs", machine.as_str(), 1),
            ("a/src/x.rs", &format!("https://example.org{}x", MACHINE[1]), 0),
            ("docs/x.md", &format!("see `{}x`", MACHINE[2]), 1),
            ("docs/x.md", &format!("https://{}/x", REGISTRIES[2]), 1),
            ("a/src/x.rs", &format!("// {}: later", UNFINISHED[0]), 1),
            ("docs/x.md", &format!("no {} here", UNFINISHED[0]), 0),
            ("docs/x.md", &format!("{}HEAD", CONFLICT[0]), 1),
            ("Cargo.lock", &format!("https://{}/x", REGISTRIES[0]), 0),
            ("a/src/x.rs", "let clean = true;", 0),
        ] {
            assert_eq!(count(path, line), expected, "{path}: {line}");
        }
    }
}
