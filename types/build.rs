//! Tells the execution profile (`src/profile.rs`) by which crates and which compiler this build was made: other versions
//! may make other bits of the same task.

use std::{
    collections::BTreeSet,
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What plans statements, runs tasks and encodes their rows. Everything that these depend on is told with them: hash tables,
/// regular expressions, calendars and parsers of numbers are in other crates than the operators that use them.
const ROOTS: &[&str] = &["arrow", "datafusion", "datafusion-proto", "libm", "parquet"];

/// What cuts plans into stages, hence decides the order of rows; what it depends on beside the above is its network, of which
/// we use nothing.
const ALONE: &[&str] = &["ballista-core", "ballista-scheduler"];

fn main() -> Result<(), Box<dyn Error>> {
    let lock = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    // Cargo runs build scripts again when the compiler is another one.
    println!("cargo::rustc-env=CONUN_RUSTC={}", compiler()?);
    println!("cargo::rustc-env=CONUN_CRATES={}", crates(&lock)?);
    Ok(())
}

/// The release of the compiler and of its standard library.
fn compiler() -> Result<String, Box<dyn Error>> {
    let output = Command::new(env::var("RUSTC")?).arg("-vV").output()?;
    let text = String::from_utf8(output.stdout)?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let release = field("release:").ok_or("`rustc -vV` names no release")?;
    // All nightlies on the way to a release have its number.
    match field("commit-hash:") {
        Some(commit) if release.contains('-') => Ok(format!("{release} {commit}")),
        _ => Ok(release.to_owned()),
    }
}

/// Names and versions of [`ROOTS`] with all that they depend on, and of [`ALONE`], as resolved, with what their sources are
/// known by: `name version checksum,name version checksum`, sorted.
fn crates(lock: &Path) -> Result<String, Box<dyn Error>> {
    let text = fs::read_to_string(lock).map_err(|e| format!("{}: {e}", lock.display()))?;
    let packages: Vec<Package<'_>> = text.split("[[package]]").skip(1).filter_map(Package::parse).collect();
    let mut found = BTreeSet::new();
    let mut next = [ROOTS, ALONE].concat();
    while let Some(wanted) = next.pop() {
        let package = packages.iter().find(|package| package.is(wanted));
        let package = package.ok_or_else(|| format!("{} has no {wanted}", lock.display()))?;
        let Package { name, version, source, .. } = package;
        if found.insert(format!("{name} {version} {source}")) && !ALONE.contains(name) {
            next.extend(&package.dependencies);
        }
    }
    Ok(Vec::from_iter(found).join(","))
}

/// One package of a lock file.
struct Package<'a> {
    name: &'a str,
    version: &'a str,
    /// Checksum of a registry's package, address and revision of a repository; nothing where it is a folder.
    source: &'a str,
    /// `name`, or `name version` where there are several of the name, or `name version (source)`.
    dependencies: Vec<&'a str>,
}

impl<'a> Package<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
            line.map(|quoted| quoted.trim_matches('"'))
        };
        let quoted = |line: &'a str| line.trim().strip_prefix('"')?.strip_suffix("\",");
        Some(Self {
            name: value("name")?,
            version: value("version")?,
            source: value("checksum").or_else(|| value("source")).unwrap_or("local"),
            dependencies: text.lines().filter_map(quoted).collect(),
        })
    }

    fn is(&self, wanted: &str) -> bool {
        let mut words = wanted.split(' ');
        words.next() == Some(self.name) && words.next().is_none_or(|version| version == self.version)
    }
}
