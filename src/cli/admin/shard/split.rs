//! `cairn admin shard split`.

use super::find::{Tenant, end, holds, quoted, start};
use super::order::{How, carry_out};
use crate::cli::admin::kv::{escape, unescape};
use crate::cli::connection::Session;
use crate::failure::{Code, Failure};
use crate::output::{self, Output};
use bytes::Bytes;
use clap::Args;
use metadb_proto::v1::ShardRecord;
use shard_router::operator::{Measure, Operator, Wanted, range_of};
use shard_router::{Client, Scan};
use std::time::Duration;

/// How long the group may look for the middle.
const MIDDLE_WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug, Args)]
pub(super) struct Split {
    /// Whose shard.
    #[arg(long, env = "CAIRN_TENANT", default_value = "demo")]
    tenant: String,
    /// Any key in the shard; without it, the shard that --at lies in, or the first one.
    #[arg(long, value_parser = unescape)]
    key: Option<Bytes>,
    /// The first key of the upper half.
    #[arg(long, value_name = "KEY", value_parser = unescape, required_unless_present = "middle", conflicts_with = "middle")]
    at: Option<Bytes>,
    /// Where about half of its bytes lie before.
    #[arg(long)]
    middle: bool,
    /// Also if one half is empty: to split ahead of a load that is to come.
    #[arg(long)]
    allow_empty: bool,
    #[command(flatten)]
    how: How,
}

impl Split {
    pub(super) async fn run(self, session: &Session, output: Output) -> Result<(), Failure> {
        let operator = session.operator();
        let tenant = Tenant::find(&operator, &self.tenant).await?;
        let key = self.key.clone().or_else(|| self.at.clone()).unwrap_or_default();
        let shard = tenant.shard(&key)?.clone();
        let at = match &self.at {
            Some(at) => at.clone(),
            None => middle(&operator, &shard).await?,
        };
        check_inside(&self, &shard, &at)?;
        if !self.allow_empty {
            check_halves(&session.router().tenant(tenant.id), &shard, &at).await?;
        }
        if self.middle {
            output::note(&format!("the middle is at {}", escape(&at)));
        }
        carry_out(session, output, &[vec![(shard, Wanted::Split { at })]], &self.how, &tenant.names()).await
    }
}

async fn middle(operator: &Operator, shard: &ShardRecord) -> Result<Bytes, Failure> {
    let found = operator.shards_in(shard.group_id, &[range_of(shard)], Measure::Middles, MIDDLE_WITHIN).await?;
    let own = found.into_iter().find(|found| found.range.as_ref() == Some(&range_of(shard)));
    let Some(own) = own else {
        let message = format!("group {} does not have the shard as the directory knows it", shard.group_id);
        return Err(Failure::new(Code::Unavailable, message).hint("it is being changed: `cairn admin shard changes` shows by what"));
    };
    own.middle.ok_or_else(|| {
        Failure::usage(format!("the shard {} has fewer than two keys, and so no middle", span(shard)))
            .hint("split it with --at KEY --allow-empty, if it is to be filled")
    })
}

fn check_inside(split: &Split, shard: &ShardRecord, at: &[u8]) -> Result<(), Failure> {
    if at.is_empty() || at == shard.start {
        let message = format!("a shard starts at {} already: nothing would be below it", start(at));
        return Err(Failure::usage(message).hint("name a key above the start; `cairn admin shard list` shows where shards start"));
    }
    if holds(shard, at) {
        return Ok(());
    }
    let own = format!("cairn admin shard split --tenant {} --at {}", split.tenant, quoted(at));
    Err(Failure::usage(format!("{} lies outside of the shard {}", escape(at), span(shard))).hint(format!("leave out --key: `{own}`")))
}

/// Both halves must have keys.
async fn check_halves(client: &Client, shard: &ShardRecord, at: &Bytes) -> Result<(), Failure> {
    let first = edge(client, &shard.start, &shard.end, false).await?;
    let Some(first) = first else {
        let message = format!("the shard {} is empty", span(shard));
        return Err(Failure::usage(message).hint("say --allow-empty to split it ahead of a load that is to come"));
    };
    let last = edge(client, &shard.start, &shard.end, true).await?.unwrap_or_else(|| first.clone());
    let side = if first >= *at {
        "below"
    } else if last < *at {
        "from it on"
    } else {
        return Ok(());
    };
    let message = format!("{side} {} there is no key: its keys go from {} to {}", escape(at), escape(&first), escape(&last));
    let hint = "name a key above the first and not above the last, or say --middle; --allow-empty splits ahead of a load that is to come";
    Err(Failure::usage(message).hint(hint))
}

/// The first key of a range, or the last.
async fn edge(client: &Client, start: &Bytes, end: &Bytes, reverse: bool) -> Result<Option<Bytes>, Failure> {
    let mut scan = Scan { start: start.clone(), end: end.clone(), limit: 1, reverse, keys_only: true, ..Scan::default() };
    loop {
        let page = client.scan(scan.clone()).await?;
        if let Some(row) = page.rows.into_iter().next() {
            return Ok(Some(row.key));
        }
        if page.continuation.is_empty() {
            return Ok(None);
        }
        scan.continuation = page.continuation;
    }
}

/// A shard for people.
pub(super) fn span(shard: &ShardRecord) -> String {
    format!("from {} to {}", start(&shard.start), end(&shard.end))
}
