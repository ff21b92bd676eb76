//! A runner by itself, for this crate's tests: Cargo tells a test where the programs of its own package are, only.

fn main() -> std::process::ExitCode {
    conun_executor::runner::child_main()
}
