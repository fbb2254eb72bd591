//! Which ports the nodes of a development cluster take: a fixed range, or the next one that is free.

use crate::failure::{Code, Failure};
use std::net::{Ipv4Addr, TcpListener};

/// The range that is tried first.
pub(crate) const DEFAULT_BASE: u16 = 7400;
/// How far apart ranges lie: the gRPC doors, then those for machines that watch, then the S3 doors.
const RANGE: u16 = 200;
/// The S3 door of node N is this far above its gRPC door.
const S3_OFFSET: u16 = 100;
/// Its door for machines that watch is this far above it.
const HTTP_OFFSET: u16 = 50;
/// How many ranges are tried. All stay below 32768, where systems begin to draw the ports of outgoing connections: such a
/// connection could take the port of a node that is down for a moment.
const RANGES: u16 = 100;

/// The doors of one node on loopback.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Doors {
    pub(crate) grpc: u16,
    pub(crate) s3: u16,
    pub(crate) http: u16,
}

/// Ports that are ours as long as this lives. The port below the first door is held open: two clusters that start at the same moment
/// would else choose the same range before either has opened a door.
#[derive(Debug)]
pub(crate) struct Reservation {
    pub(crate) doors: Vec<Doors>,
    _guard: TcpListener,
}

/// Doors for so many nodes, all free now. A base that the person asked for is taken or refused; else the first free range is.
pub(crate) fn choose(nodes: u16, asked: Option<u16>) -> Result<Reservation, Failure> {
    if let Some(base) = asked {
        return reserve(range(nodes, base), base)
            .map_err(|port| in_use(port).hint("choose another --port-base, or leave it out: the next free range is taken then"));
    }
    let bases = (0..RANGES).map(|number| DEFAULT_BASE + number * RANGE);
    let mut free = bases.filter_map(|base| reserve(range(nodes, base), base).ok());
    free.next().ok_or_else(|| Failure::failed("no range of free ports was found").hint("give a --port-base"))
}

/// The doors that a folder's nodes have, if nobody else has them.
pub(crate) fn again(doors: &[Doors]) -> Result<Reservation, Failure> {
    let base = doors.first().map_or(0, |doors| doors.grpc.saturating_sub(1));
    let told = "the nodes of this folder live at their ports; stop the process that has one, or use another folder with --data";
    reserve(doors.to_vec(), base).map_err(|port| in_use(port).hint(told))
}

fn reserve(doors: Vec<Doors>, base: u16) -> Result<Reservation, u16> {
    let guard = TcpListener::bind((Ipv4Addr::LOCALHOST, base)).map_err(|_| base)?;
    match doors.iter().find_map(taken) {
        None => Ok(Reservation { doors, _guard: guard }),
        Some(port) => Err(port),
    }
}

fn range(nodes: u16, base: u16) -> Vec<Doors> {
    (1..=nodes).map(|node| Doors { grpc: base + node, s3: base + S3_OFFSET + node, http: base + HTTP_OFFSET + node }).collect()
}

fn in_use(port: u16) -> Failure {
    Failure::new(Code::Conflict, format!("port {port} is in use by another process"))
}

fn taken(doors: &Doors) -> Option<u16> {
    [doors.grpc, doors.s3, doors.http].into_iter().find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_is_taken_is_passed_over_or_refused_by_port() {
        let mine = choose(2, None).expect("some range is free");
        let others = choose(2, None).expect("another range is free");
        assert!(others.doors[0].grpc > mine.doors[1].grpc, "a reserved range is passed over");
        let doors = others.doors.clone();
        drop(others);
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, doors[1].s3)).expect("it was free");
        let port = held.local_addr().expect("bound").port();
        let refused = choose(2, Some(doors[0].grpc - 1)).expect_err("taken");
        assert!(refused.message.contains(&port.to_string()), "{refused}");
        assert!(again(&doors).is_err());
        drop(held);
        again(&doors).expect("free again");
    }

    #[test]
    fn all_ranges_stay_below_the_ports_of_outgoing_connections() {
        assert!(u32::from(DEFAULT_BASE) + u32::from(RANGES) * u32::from(RANGE) + 200 < 32768);
    }
}
