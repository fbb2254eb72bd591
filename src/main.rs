//! The one binary: a development cluster, one node, the operator's and the file system's commands.
//!
//! It holds no logic of its own: settings, wiring, and how things look to a person. `cli` says what can be said; `node` puts one node
//! together from the libraries; `dev` runs several as child processes; `demo` breaks them on purpose; `output` alone prints.

mod cli;
mod config;
mod datadir;
mod demo;
mod demo_shards;
mod dev;
mod failure;
mod node;
mod output;
mod s3_client;
mod telemetry;

/// A put makes some hundred small allocations over the nodes; this one is made for them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
