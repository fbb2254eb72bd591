//! Free ports of this machine.

use anyhow::Context as _;
use std::net::{Ipv4Addr, TcpListener};

/// That many ports that nobody listens on now.
///
/// # Errors
/// If the system gives none.
pub fn free(count: usize) -> anyhow::Result<Vec<u16>> {
    // All are held until the last is found, so that none is given twice.
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>().context("no free port")?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}
