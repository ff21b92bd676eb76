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
