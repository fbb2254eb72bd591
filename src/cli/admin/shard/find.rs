//! Which shard is meant: a tenant's name and a key.

use crate::cli::admin::kv::{escape, unescape};
use crate::failure::{Code, Failure};
use bytes::Bytes;
use clap::Args;
use metadb_proto::v1::ShardRecord;
use shard_router::operator::Operator;
use std::collections::BTreeMap;

/// A shard, as it is named.
#[derive(Debug, Args)]
pub(super) struct Named {
    /// Whose shard.
    #[arg(long, env = "CAIRN_TENANT", default_value = "demo")]
    pub(super) tenant: String,
    /// Any key in it; without it, the tenant's first shard.
    #[arg(long, value_parser = unescape, default_value = "", hide_default_value = true)]
    pub(super) key: Bytes,
}

/// A tenant and its shards, in the order of their keys.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) shards: Vec<ShardRecord>,
}

impl Tenant {
    pub(super) async fn find(operator: &Operator, name: &str) -> Result<Self, Failure> {
        let found = operator.tenant(name).await;
        let id = found.map_err(|error| with_hint(error, "`cairn admin tenant list` shows the tenants"))?.tenant_id;
        let shards = operator.shards(id).await?;
        Ok(Tenant { id, name: name.to_owned(), shards })
    }

    /// The shard that a key lies in.
    pub(super) fn shard(&self, key: &[u8]) -> Result<&ShardRecord, Failure> {
        let found = self.shards.iter().rev().find(|shard| shard.start.as_ref() <= key).filter(|shard| holds(shard, key));
        let missing = || {
            let message = format!("tenant {} has no shard that holds {}", self.name, escape(key));
            Failure::new(Code::NotFound, message).hint("is it being made or deleted? `cairn admin tenant list` shows its state")
        };
        found.ok_or_else(missing)
    }

    /// The shard behind one.
    pub(super) fn behind(&self, shard: &ShardRecord) -> Option<&ShardRecord> {
        if shard.end.is_empty() {
            return None;
        }
        self.shards.iter().find(|other| other.start == shard.end)
    }

    pub(super) fn names(&self) -> Names {
        Names(BTreeMap::from([(self.id, self.name.clone())]))
    }
}

/// Names of tenants by id.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<u64, String>);

impl Names {
    pub(super) async fn all(operator: &Operator) -> Result<Self, Failure> {
        Ok(Names(operator.tenants().await?.into_iter().map(|tenant| (tenant.tenant_id, tenant.name)).collect()))
    }

    pub(super) fn of(&self, tenant_id: u64) -> String {
        match tenant_id {
            metadb_proto::directory::DIRECTORY_TENANT => "(directory)".to_owned(),
            id => self.0.get(&id).cloned().unwrap_or_else(|| format!("#{id}")),
        }
    }
}

pub(super) fn holds(shard: &ShardRecord, key: &[u8]) -> bool {
    shard.start.as_ref() <= key && (shard.end.is_empty() || key < shard.end.as_ref())
}

/// Where a shard starts, for people.
pub(super) fn start(key: &[u8]) -> String {
    if key.is_empty() { "(begin)".to_owned() } else { escape(key) }
}

/// Where a shard ends, for people.
pub(super) fn end(key: &[u8]) -> String {
    if key.is_empty() { "(end)".to_owned() } else { escape(key) }
}

/// A key as an argument of a shell.
pub(super) fn quoted(key: &[u8]) -> String {
    format!("'{}'", escape(key).replace('\'', "\\x27"))
}

/// An error with what to do where the error alone does not say it.
pub(super) fn with_hint(error: metadb_proto::Error, hint: &str) -> Failure {
    let is_missing = matches!(error, metadb_proto::Error::NotFound { .. });
    let failure = Failure::from(error);
    if is_missing { failure.hint(hint) } else { failure }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant() -> Tenant {
        let shard = |start: &'static str, end: &'static str| ShardRecord { start: start.into(), end: end.into(), ..Default::default() };
        Tenant { id: 7, name: "acme".into(), shards: vec![shard("", "g"), shard("g", "p"), shard("p", "")] }
    }

    #[test]
    fn a_key_finds_its_shard_and_a_shard_its_neighbour() {
        let tenant = tenant();
        let start = |key: &[u8]| tenant.shard(key).expect("found").start.clone();
        assert_eq!((start(b""), start(b"fz"), start(b"g"), start(b"\xff")), ("".into(), "".into(), "g".into(), "p".into()));
        let behind = |key: &[u8]| tenant.behind(tenant.shard(key).expect("found")).map(|shard| shard.start.clone());
        assert_eq!((behind(b"a"), behind(b"h"), behind(b"q")), (Some("g".into()), Some("p".into()), None));
        let gap = Tenant { shards: tenant.shards[1..].to_vec(), ..tenant };
        assert_eq!(gap.shard(b"a").expect_err("a gap").code, Code::NotFound);
    }

    #[test]
    fn a_quoted_key_survives_a_shell() {
        assert_eq!(quoted(b"it's\x00"), "'it\\x27s\\x00'");
        assert_eq!(unescape("it\\x27s\\x00").expect("unescapes"), &b"it's\x00"[..]);
    }
}
