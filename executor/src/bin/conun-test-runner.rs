//! A runner by itself, for tests of the pool and of nodes. People use `conun runner` through a node.

fn main() -> std::process::ExitCode {
    conun_executor::runner::child_main()
}
