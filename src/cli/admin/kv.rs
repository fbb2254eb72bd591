//! `cairn admin kv`: a tenant's keys and values as they are stored. Keys and values are bytes; text is told as it is, anything else in
//! the manner of `\x00`, which is understood too when it is given.

mod directory;

use crate::cli::connection::Session;
use crate::failure::Failure;
use crate::output::{Output, Show};
use bytes::Bytes;
use clap::{Args, Subcommand};
use metadb_proto::v1;
use serde::Serialize;
use shard_router::{Client, Scan};

const EXAMPLES: &str = "\
Examples:
  cairn admin kv put --tenant acme greeting hello
  cairn admin kv get --tenant acme greeting
  cairn admin kv scan --tenant acme --prefix gre
  cairn admin kv delete --tenant acme greeting
  cairn admin kv get --tenant acme '\\x02key\\x00'       bytes that are not text
  cairn admin kv scan --directory                      the directory's own records, decoded; they can't be changed here

The file system keeps its own rows here: what you change by hand, it may not understand.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Kv {
    /// Whose keys.
    #[arg(long, global = true, env = "CAIRN_TENANT", default_value = "demo")]
    tenant: String,
    /// The cluster's directory instead of a tenant: only to look at, with its records decoded.
    #[arg(long, global = true)]
    directory: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print the value of a key.
    #[command(after_help = "Examples:\n  cairn admin kv get --tenant acme greeting")]
    Get {
        /// The key.
        #[arg(value_parser = unescape)]
        key: Bytes,
    },
    /// Write a value.
    #[command(after_help = "Examples:\n  cairn admin kv put --tenant acme greeting hello")]
    Put {
        /// The key.
        #[arg(value_parser = unescape)]
        key: Bytes,
        /// The value.
        #[arg(value_parser = unescape)]
        value: Bytes,
    },
    /// Delete a key.
    #[command(after_help = "Examples:\n  cairn admin kv delete --tenant acme greeting")]
    Delete {
        /// The key.
        #[arg(value_parser = unescape)]
        key: Bytes,
    },
    /// List keys and values in order.
    #[command(after_help = "Examples:\n  cairn admin kv scan --tenant acme --prefix gre --limit 10 -o json")]
    Scan {
        /// Only keys that begin so.
        #[arg(long, value_parser = unescape, default_value = "")]
        prefix: Bytes,
        /// Most rows.
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// The last ones first.
        #[arg(long)]
        reverse: bool,
    },
}

#[derive(Debug, Serialize)]
struct Row {
    key: String,
    value: String,
    version: u64,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Rows(Vec<Row>);

impl From<&v1::KeyValue> for Row {
    fn from(row: &v1::KeyValue) -> Self {
        Row { key: escape(&row.key), value: escape(&row.value), version: row.version }
    }
}

impl Show for Rows {
    fn columns(&self) -> Vec<&'static str> {
        vec!["KEY", "VALUE", "VERSION"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        self.0.iter().map(|row| vec![row.key.clone(), row.value.clone(), row.version.to_string()]).collect()
    }

    fn empty(&self) -> &'static str {
        "no keys"
    }
}

impl Kv {
    pub(super) async fn run(self, session: &Session, output: Output) -> Result<(), Failure> {
        if self.directory {
            return directory::run(self.verb, session, output).await;
        }
        let client = session.router().tenant_named(&self.tenant).await?;
        match self.verb {
            Verb::Get { key } => {
                let row = client.get(key.clone()).await?;
                let row =
                    row.ok_or_else(|| metadb_proto::Error::not_found(format!("the key {} of tenant {}", escape(&key), self.tenant)))?;
                let row = Row::from(&row);
                output.done(&row.value, &row)
            }
            Verb::Put { key, value } => {
                let version = transact(&client, shard_router::operation::put(key.clone(), value)).await?.version;
                output.done(&format!("written at version {version}"), &serde_json::json!({ "key": escape(&key), "version": version }))
            }
            Verb::Delete { key } => {
                let answer = transact(&client, shard_router::operation::delete(key.clone())).await?;
                if answer.results.first().is_none_or(|result| result.deleted == 0) {
                    return Err(metadb_proto::Error::not_found(format!("the key {} of tenant {}", escape(&key), self.tenant)).into());
                }
                output.done(
                    &format!("deleted at version {}", answer.version),
                    &serde_json::json!({ "key": escape(&key), "version": answer.version }),
                )
            }
            Verb::Scan { prefix, limit, reverse } => {
                let rows = scan(&client, &prefix, limit, reverse).await?;
                output.show(&Rows(rows.iter().map(Row::from).collect()))
            }
        }
    }
}

async fn transact(client: &Client, operation: v1::Operation) -> Result<v1::TransactResponse, Failure> {
    Ok(client.transact(Vec::new(), vec![operation]).await?)
}

/// Pages until there are enough rows, or no more.
async fn scan(client: &Client, prefix: &Bytes, limit: u32, reverse: bool) -> Result<Vec<v1::KeyValue>, Failure> {
    let page_rows = u32::try_from(metadb_proto::limits::PAGE_ROWS).unwrap_or(u32::MAX);
    let (mut rows, mut continuation) = (Vec::new(), Bytes::new());
    loop {
        let missing = limit.saturating_sub(u32::try_from(rows.len()).unwrap_or(u32::MAX));
        if missing == 0 {
            return Ok(rows);
        }
        let ask =
            Scan { start: prefix.clone(), end: after(prefix), limit: missing.min(page_rows), reverse, continuation, ..Scan::default() };
        let page = client.scan(ask).await?;
        rows.extend(page.rows);
        if page.continuation.is_empty() {
            return Ok(rows);
        }
        continuation = page.continuation;
    }
}

/// The first key behind all that begin with `prefix`; empty if there is none.
fn after(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end.into()
}

/// Bytes as text: what is not printable, and the backslash, in the manner of `\x00`.
pub(super) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' {
                c.to_string().bytes().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
            } else {
                text.push(c);
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

pub(super) fn unescape(text: &str) -> Result<Bytes, String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let digits = rest.get(at + 1..at + 4).and_then(|code| code.strip_prefix('x'));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or("a backslash must be followed by x and two hex digits; a backslash itself is \\x5c")?);
        rest = &rest[at + 4..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_being_told() {
        for bytes in [&b"plain"[..], b"", b"\x00\x02a\\b\xff\xfe", "gr\u{fc}n\n".as_bytes()] {
            assert_eq!(unescape(&escape(bytes)).expect("unescapes"), bytes);
        }
        assert_eq!(escape(b"a\x00b"), "a\\x00b");
        assert!(unescape("\\q").is_err() && unescape("\\x4").is_err() && unescape("\\").is_err());
    }

    #[test]
    fn the_end_of_a_prefix() {
        assert_eq!(after(b"ab"), &b"ac"[..]);
        assert_eq!(after(b"a\xff"), &b"b"[..]);
        assert_eq!(after(b"\xff"), &b""[..]);
        assert_eq!(after(b""), &b""[..]);
    }
}
