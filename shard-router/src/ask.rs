//! What is asked, apart from where: each kind of request knows which keys it touches and how its body looks once its place is known.

use crate::metrics;
use crate::routes::{Place, TenantRoutes};
use bytes::Bytes;
use metadb_proto::kv::request;
use metadb_proto::v1::{self, condition, operation};
use metadb_proto::{Error, kv};

/// A request of a caller, asked as often as needed.
pub(crate) trait Ask: Send + Sync {
    /// Which part of the tenant it goes to.
    fn place(&self, routes: &TenantRoutes) -> Result<Place, Error>;
    /// Its place among the kinds of requests, as they are counted.
    fn verb(&self) -> usize;
    /// What is sent there; the header is the driver's.
    fn body(&self, place: &Place) -> request::Body;
}

/// A request whose keys are all known before it is asked: everything but a scan.
pub(crate) struct Keyed {
    body: request::Body,
}

impl Keyed {
    pub(crate) fn new(body: request::Body) -> Self {
        Keyed { body }
    }
}

impl Ask for Keyed {
    fn place(&self, routes: &TenantRoutes) -> Result<Place, Error> {
        if let Some(only) = routes.only() {
            return Ok(only.clone());
        }
        let mut touched = Touched { routes, place: None };
        match &self.body {
            request::Body::Get(r) => touched.key(&r.key)?,
            request::Body::MultiGet(r) => r.keys.iter().try_for_each(|key| touched.key(key))?,
            // The rows further down a walk are checked where they are read.
            request::Body::Walk(r) => touched.key(&first_key(r))?,
            request::Body::Scan(r) => touched.range(&r.start, &r.end)?,
            request::Body::Transact(r) => {
                r.conditions.iter().try_for_each(|c| touched.condition(c))?;
                r.operations.iter().try_for_each(|o| touched.operation(o))?;
            }
        }
        match touched.place {
            Some(place) => Ok(place),
            None => routes.at(b"").cloned(),
        }
    }

    fn verb(&self) -> usize {
        metrics::verb(&self.body)
    }

    fn body(&self, _: &Place) -> request::Body {
        self.body.clone()
    }
}

fn first_key(walk: &v1::WalkRequest) -> Vec<u8> {
    let segment = walk.segments.first().map(Bytes::as_ref).unwrap_or_default();
    [walk.prefix.as_ref(), walk.start.as_ref(), segment].concat()
}

/// Collects the place of all keys, and refuses a second group.
struct Touched<'a> {
    routes: &'a TenantRoutes,
    place: Option<Place>,
}

impl Touched<'_> {
    fn key(&mut self, key: &[u8]) -> Result<(), Error> {
        let place = self.routes.at(key)?;
        match &mut self.place {
            None => self.place = Some(place.clone()),
            Some(seen) if seen.group_id != place.group_id => {
                let groups = [seen.group_id, place.group_id].map(|group| group.map_or_else(|| "?".into(), |id| id.to_string()));
                return Err(Error::invalid(
                    "keys",
                    "all in one group: transactions across groups are not supported yet",
                    groups.join(" and "),
                ));
            }
            // Several shards of one group: no single epoch says it.
            Some(seen) if seen.start != place.start => {
                seen.epoch = 0;
                seen.start = seen.start.clone().min(place.start.clone());
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn range(&mut self, start: &[u8], end: &[u8]) -> Result<(), Error> {
        for place in self.routes.overlapping(start, end) {
            self.key(&place.start)?;
        }
        self.key(start)
    }

    fn condition(&mut self, c: &v1::Condition) -> Result<(), Error> {
        match &c.test {
            Some(
                condition::Test::RangeEmpty(condition::RangeEmpty { end })
                | condition::Test::RangeUnchanged(condition::RangeUnchanged { end, .. }),
            ) => self.range(&c.key, end),
            _ => self.key(&c.key),
        }
    }

    fn operation(&mut self, o: &v1::Operation) -> Result<(), Error> {
        use operation::Op;
        match &o.op {
            Some(Op::Get(operation::Get { key }) | Op::Delete(operation::Delete { key }) | Op::Add(operation::Add { key, .. })) => {
                self.key(key)
            }
            Some(Op::Put(put)) => self.key(&put.key),
            Some(Op::PutVersionstamped(put)) => self.key(&put.prefix),
            Some(Op::DeleteRange(range)) => self.range(&range.start, &range.end),
            None => Ok(()),
        }
    }
}

/// Fills in what the place and the moment say.
pub(crate) fn stamp(body: &mut request::Body, tenant_id: u64, place: &Place, time_left: std::time::Duration) {
    let header = kv::header_mut(body);
    header.tenant_id = tenant_id;
    header.group_id = place.group_id;
    header.epoch = place.epoch;
    header.deadline_ms = u32::try_from(time_left.as_millis()).unwrap_or(u32::MAX).max(1);
}
