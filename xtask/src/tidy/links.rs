//! Relative links in Markdown lead to something.

use crate::repo::{Finding, TextFile};

/// `exists` tells whether a path from the root is a file or folder.
pub(crate) fn check(files: &[TextFile], exists: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|f| f.has_extension("md")) {
        for (line, target) in links(file) {
            if !resolve(&file.path, target).is_some_and(|path| exists(&path)) {
                findings.push(Finding::new(&file.path, line, format!("broken link: {target}")));
            }
        }
    }
    findings
}

/// Targets of relative links, with their lines; code blocks apart.
fn links(file: &TextFile) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (number, line) in file.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            found.extend(targets(line).filter(|target| is_relative(target)).map(|target| (number, target)));
        }
    }
    found
}

/// What stands in `](…)`, without a title.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    let parts = line.split("](").skip(1);
    parts.filter_map(|part| part.split(')').next()).map(|target| target.split(' ').next().unwrap_or(target))
}

fn is_relative(target: &str) -> bool {
    !target.starts_with('#') && !target.contains("://") && !target.starts_with("mailto:")
}

/// The path from the root that `target` means in a file at `from`; none where it leaves the repository.
fn resolve(from: &str, target: &str) -> Option<String> {
    let path = target.split('#').next().unwrap_or(target);
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match part {
            ".." => _ = parts.pop()?,
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_relative_links_that_lead_nowhere_are_found() {
        let exists = |path: &str| ["docs/a.md", "README.md", "docs"].contains(&path);
        for (text, broken) in [
            ("[a](a.md) [b](../README.md#top) [c](../docs/)", 0),
            ("[a](missing.md)", 1),
            ("[a](../../README.md)", 1),
            ("[a](https://example.org/x) [b](#here) [c](mailto:x@y)", 0),
            ("![p](a.md \"title\") and [q](nope/)", 1),
            ("```\n[a](missing.md)\n```", 0),
        ] {
            let found = check(&[TextFile::new("docs/x.md", text)], &exists);
            assert_eq!(found.len(), broken, "{text}: {found:?}");
        }
    }
}
