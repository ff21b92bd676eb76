//! `cargo xtask matrix`: the same queries on networks that differ in whatever must not show in an answer.
//!
//! What it knows: the settings to compare, how a devnet is started with each, and that answers are judged by the golden
//! ones and digests by those of the first setting. What it must not know: how an answer comes about.

mod builds;
mod run;

use std::path::{Path, PathBuf};

use crate::ci::release_dir;
use crate::{Result, bench};
use builds::Build;
use run::{Observed, Workload};

/// Nodes that quorum needs to find two replicas and a third.
const NODES: usize = 3;
/// The longest that a node holds back an answer or a block, in milliseconds.
const DELAY: u32 = 40;

/// What to compare.
#[derive(Debug, Clone, PartialEq)]
struct Options {
    /// Scale factor of TPC-H.
    scale: f64,
    /// Whether to compare builds for other processors, which takes as many builds of everything.
    builds: bool,
    /// Whether to change everything at once, in both directions: three networks instead of seven, for CI.
    joined: bool,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self { scale: 0.01, builds: false, joined: false };
        let mut args = args.iter();
        while let Some(flag) = args.next() {
            match flag.as_str() {
                "--builds" => options.builds = true,
                "--joined" => options.joined = true,
                "--scale" => options.scale = args.next().ok_or("--scale needs a value")?.parse()?,
                other => return Err(format!("unknown option {other}").into()),
            }
        }
        Ok(options)
    }
}

/// One network.
#[derive(Debug, Clone)]
struct Setting {
    name: String,
    nodes: usize,
    /// More arguments of `devnet up`.
    flags: Vec<String>,
    /// Folder of the programs.
    bin: PathBuf,
}

impl Setting {
    fn new(name: &str, nodes: usize, flags: &[&str], bin: &Path) -> Self {
        let flags = flags.iter().map(ToString::to_string).collect();
        Self { name: name.to_owned(), nodes, flags, bin: bin.to_owned() }
    }
}

/// The first is what the others are compared with.
fn settings(bin: &Path, joined: bool) -> Vec<Setting> {
    let (first, delay) = (Setting::new("3 nodes", NODES, &[], bin), DELAY.to_string());
    if joined {
        let most = ["--partitions", "16", "--delay-ms", &delay];
        return vec![
            first,
            Setting::new("1 node, 1 partition", 1, &["--partitions", "1"], bin),
            Setting::new("6 nodes, 16 partitions, shuffled arrival", 6, &most, bin),
        ];
    }
    vec![
        first,
        Setting::new("1 node", 1, &[], bin),
        Setting::new("6 nodes", 6, &[], bin),
        Setting::new("1 partition", NODES, &["--partitions", "1"], bin),
        Setting::new("4 partitions", NODES, &["--partitions", "4"], bin),
        Setting::new("16 partitions", NODES, &["--partitions", "16"], bin),
        Setting::new("shuffled arrival", NODES, &["--delay-ms", &delay], bin),
    ]
}

pub(crate) fn run(args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    let bin = release_dir()?;
    bench::build()?;
    let data = bench::prepare_data(&bin, options.scale)?;
    let scratch = std::env::temp_dir().join(format!("conun-matrix-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)?;
    let outcome = compare(&options, &bin, &data, &scratch);
    std::fs::remove_dir_all(&scratch)?;
    outcome
}

/// Runs every setting, even after one differed.
fn compare(options: &Options, bin: &Path, data: &Path, scratch: &Path) -> Result<()> {
    let work = Workload::new(options.scale, data)?;
    let mut first: Option<Vec<Observed>> = None;
    let mut wrong = 0;
    let mut judge = |setting: &Setting| -> Result<()> {
        let start = std::time::Instant::now();
        let observed = run::observe(setting, &work, &scratch.join("devnet"))?;
        let complaints = run::complaints(&work.cases, &observed, first.as_deref());
        let seconds = start.elapsed().as_secs_f64();
        let verdict = if complaints.is_empty() { "equal" } else { "DIFFERENT" };
        println!("{verdict:>9}  {:3} answers  {seconds:6.1} s  {}", observed.len(), setting.name);
        complaints.iter().for_each(|complaint| println!("           {complaint}"));
        wrong += complaints.len();
        first.get_or_insert(observed);
        Ok(())
    };
    settings(bin, options.joined).iter().try_for_each(&mut judge)?;
    if options.builds {
        for build in Build::all() {
            let bin = build.make(bin)?;
            judge(&Setting::new(&build.name(), NODES, &[], &bin))?;
        }
    }
    if wrong == 0 { Ok(()) } else { Err(format!("{wrong} answers differ").into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_parsed() {
        let parse = |args: &[&str]| Options::parse(&crate::words(args)).map_err(|e| e.to_string());
        assert_eq!(parse(&[]), Ok(Options { scale: 0.01, builds: false, joined: false }));
        assert_eq!(parse(&["--builds", "--scale", "1"]), Ok(Options { scale: 1.0, builds: true, joined: false }));
        assert!(parse(&["--joined"]).is_ok_and(|options| options.joined));
        for wrong in [&["--scale"][..], &["--scale", "x"], &["--build"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
