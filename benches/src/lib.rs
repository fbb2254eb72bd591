//! Side-by-side measurement: Cairn, etcd, MariaDB and the machine's own limits, in one run, in interleaved rounds.
//!
//! etcd and Cairn run as three processes on this machine, MariaDB as one; all durable, with fresh data each time. Cairn is asked through
//! plain unary gRPC and through the router, etcd through its own gRPC API at its leader, where it is fastest, MariaDB by prepared inserts.
//! A figure of several rounds is their median.
//!
//! [`plan`] says what is measured, [`sections`] does it, [`systems`] starts and asks what is measured, [`target`] is one way to ask,
//! [`load`] the clients, [`procfs`] and [`profile`] what the kernel tells of the processes, [`report`] tables, thresholds, JSON and the last line, [`plot`]
//! the curves.
//!
//! Not here: pass or fail. A figure is judged by who reads it; tests never depend on time.

pub mod load;
pub mod plan;
pub mod plot;
pub mod procfs;
pub mod profile;
pub mod report;
pub mod sections;
pub mod systems;
pub mod target;

/// Generated from `proto/etcd.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::restriction, reason = "generated code; the proto carries the comments")]
pub mod etcd_api {
    tonic::include_proto!("etcdserverpb");
}

/// Generated from `proto/echo.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::restriction, reason = "generated code; the proto carries the comments")]
pub mod echo_api {
    tonic::include_proto!("bench.v1");
}
