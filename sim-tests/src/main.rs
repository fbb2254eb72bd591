//! `sim`: runs seeds and prints what came of them. Built with `RUSTFLAGS="--cfg madsim"`.

#[cfg(madsim)]
mod matrix;
#[cfg(madsim)]
mod print;

#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    print::main()
}

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    use std::io::Write as _;
    let _ =
        writeln!(std::io::stderr(), "sim: this build has no simulator; build with RUSTFLAGS=\"--cfg madsim\" and --target-dir target/sim");
    std::process::ExitCode::from(2)
}
