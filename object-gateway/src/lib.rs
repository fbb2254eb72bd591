//! File bytes, and the doors to them.
//!
//! [`content`] keeps immutable contents: three copies on distinct nodes, checksummed end to end. [`s3`] speaks the S3 protocol: names
//! and versions are `fs-layer`'s, bytes are the content store's, the wire format and SigV4 come from the `s3s` library.
//!
//! A PutObject: `s3::guard` refuses what is malformed, `s3s` verifies the signature, `s3::action::put_object` streams the body through
//! `s3::digest` into `content::write` (durable on two nodes), then names it in one transaction of `fs_layer::Namespace`. So bytes are
//! durable before they have a name, and a body that breaks off changes nothing.
//!
//! What nothing names any more is freed by [`collect`], in the background.
//!
//! Not here: names, versions and permissions (`fs-layer`), where metadata lives (`shard-router`), which contents are no longer named
//! (`fs-layer` tells). Never compiled for the simulator: sockets and files here are the real ones.

pub mod collect;
pub mod content;
pub mod metrics;
pub mod s3;
