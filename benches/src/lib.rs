//! Side-by-side measurement: Cairn, etcd and the machine's own limits, in one run, in interleaved rounds.
//!
//! Both systems run as three processes on this machine, durable, with fresh data each time. What is measured: puts of 256 bytes and
//! linearizable gets, from 1 to 256 clients that each wait for their answer; Cairn through plain unary gRPC and through the router,
//! etcd through its own gRPC API at its leader, where it is fastest. The figures of a cell are the medians over the rounds.
//!
//! [`plan`] says what is measured, [`rounds`] does it, [`target`] is one way to put and get, [`load`] the clients, [`limits`] what the
//! disk and a bare gRPC call allow, [`report`] the table, the plot, the JSON and the last line.
//!
//! Not here: pass or fail. A figure is judged by who reads it; tests never depend on time.

pub mod cairn;
pub mod etcd;
pub mod limits;
pub mod load;
pub mod plan;
pub mod ports;
pub mod report;
pub mod rounds;
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
