//! Rust files: each begins with what it knows, and neither files nor functions grow without bound.

use crate::repo::{Finding, TextFile};

/// No file that is not a test has more lines.
const MAX_LINES: usize = 600;
/// Nine in ten have at most as many.
const P90_LINES: usize = 500;
/// No function outside of tests has more lines.
const MAX_FUNCTION: usize = 100;

pub(crate) fn check(files: &[TextFile]) -> Vec<Finding> {
    let sources: Vec<&TextFile> = files.iter().filter(|f| f.has_extension("rs")).collect();
    let product: Vec<&TextFile> = sources.iter().copied().filter(|f| !is_test(&f.path)).collect();
    let mut findings: Vec<Finding> = sources.iter().filter_map(|f| undocumented(f)).collect();
    findings.extend(product.iter().filter_map(|f| too_long(f)));
    findings.extend(product.iter().flat_map(|f| long_functions(f)));
    findings.extend(p90_too_long(&product));
    findings
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.ends_with("_tests.rs")
}

fn undocumented(file: &TextFile) -> Option<Finding> {
    let first = file.text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
    let documented = first.is_some_and(|line| line.starts_with("//!"));
    (!documented).then(|| Finding::new(&file.path, 1, "a module begins with `//!`: what it knows"))
}

fn too_long(file: &TextFile) -> Option<Finding> {
    let lines = file.text.lines().count();
    (lines > MAX_LINES).then(|| Finding::new(&file.path, MAX_LINES, format!("{lines} lines, at most {MAX_LINES}")))
}

/// The file at the ninetieth percentile, where it is too long.
fn p90_too_long(files: &[&TextFile]) -> Option<Finding> {
    let mut sizes: Vec<(usize, &str)> = files.iter().map(|f| (f.text.lines().count(), f.path.as_str())).collect();
    sizes.sort_unstable();
    let (lines, path) = *sizes.get(sizes.len().saturating_sub(1) * 9 / 10)?;
    (lines > P90_LINES)
        .then(|| Finding::new(path, 1, format!("one file in ten has {lines} lines, at most {P90_LINES}")))
}

/// Functions that are too long, up to the file's own tests. rustfmt puts a function's closing brace under its first
/// letter, so no parser is needed.
fn long_functions(file: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut open: Vec<(usize, usize, String)> = Vec::new();
    for (number, line) in file.lines().take_while(|(_, line)| !line.starts_with("#[cfg(test)]")) {
        let indent = line.len() - line.trim_start().len();
        if let Some(name) = function_name(line.trim_start()) {
            open.push((indent, number, name.to_owned()));
        }
        if line.trim_start().starts_with('}') {
            while let Some((_, start, name)) = open.pop_if(|(at, ..)| *at == indent) {
                let lines = number - start + 1;
                if lines > MAX_FUNCTION {
                    let told = format!("function {name} has {lines} lines, at most {MAX_FUNCTION}");
                    findings.push(Finding::new(&file.path, start, told));
                }
            }
        } else if open.last().is_some_and(|(at, start, _)| *at == indent && number > *start && declares_only(line)) {
            open.pop();
        }
    }
    findings
}

/// A signature that ended with a semicolon (a trait's method) has no body to measure.
fn declares_only(line: &str) -> bool {
    line.trim_end().ends_with(';')
}

fn function_name(code: &str) -> Option<&str> {
    let mut rest = code;
    if let Some(after) = rest.strip_prefix("pub") {
        rest = match after.strip_prefix('(') {
            Some(scoped) => scoped.split_once(')')?.1.trim_start(),
            None => after.trim_start(),
        };
    }
    for word in ["const ", "async ", "unsafe "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let name = rest.strip_prefix("fn ")?;
    let one_line = code.trim_end().ends_with([';', '}']);
    name.split(['(', '<']).next().filter(|_| !one_line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        check(&[TextFile::new(path, text)]).into_iter().map(|f| format!("{}: {}", f.line, f.message)).collect()
    }

    fn function(head: &str, lines: usize) -> String {
        format!("{head} {{\n{}}}\n", "    x();\n".repeat(lines - 2))
    }

    #[test]
    fn a_module_says_what_it_knows() {
        assert!(messages("a/src/x.rs", "//! Knows x.\n").is_empty());
        assert!(messages("a/src/x.rs", "#![allow(x)]\n\n//! Knows x.\n").is_empty());
        assert_eq!(messages("a/src/x.rs", "use x;\n").len(), 1);
    }

    #[test]
    fn files_are_bounded_and_tests_are_free() {
        let long = format!("//! x\n{}", "\n".repeat(MAX_LINES));
        assert_eq!(messages("a/src/x.rs", &long).len(), 2, "too long, and the ninetieth percentile with it");
        assert!(messages("a/tests/x.rs", &long).is_empty());
        assert!(messages("a/src/x/tests.rs", &long).is_empty());
    }

    #[test]
    fn functions_are_bounded() {
        for (head, name) in [
            ("fn story()", "story"),
            ("pub(crate) async fn story<T>(t: T)", "story"),
            ("pub const fn story()", "story"),
        ] {
            let text = format!("//! x\n{}{}", function("fn short()", 100), function(head, 101));
            let told = format!("102: function {name} has 101 lines, at most 100");
            assert_eq!(messages("a/src/x.rs", &text), [told], "{head}");
        }
        let trait_method =
            "//! x\ntrait T {\n    fn a(\n        &self,\n    );\n".to_owned() + &"    //\n".repeat(120) + "}\n";
        assert!(messages("a/src/x.rs", &trait_method).is_empty());
        let tests = format!("//! x\n#[cfg(test)]\nmod tests {{\n{}}}\n", function("    fn long()", 150));
        assert!(messages("a/src/x.rs", &tests).is_empty());
    }
}
