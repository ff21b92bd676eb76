//! docs/DETERMINISM.md says what the execution profile is.

use conun_types::profile;

const DOCUMENT: &str = include_str!("../../docs/DETERMINISM.md");

#[test]
fn the_profile_is_documented() {
    assert!(DOCUMENT.contains(&format!("This is `{}`, with `{}`", profile::NAME, profile::FUNCTIONS)));
    for (key, value) in profile::SETTINGS {
        assert!(DOCUMENT.contains(&format!("| `{key}` | {value} | ")), "{key} = {value}");
    }
    let documented = DOCUMENT.lines().filter(|line| line.starts_with("| `datafusion.")).count();
    assert_eq!(documented, profile::SETTINGS.len());
}

#[test]
fn the_versions_are_documented() {
    let rows = DOCUMENT.lines().skip_while(|line| *line != "| crate | version |").skip(2);
    let documented: Vec<_> =
        rows.map_while(|line| line.strip_prefix("| `")?.strip_suffix(" |")?.split_once("` | ")).collect();
    assert!(documented.len() > 5, "{documented:?}");
    for (name, version) in documented {
        assert!(
            profile::crates().any(|found| found == (name, version)),
            "{name} {version}: write down the one that is locked"
        );
    }
}
