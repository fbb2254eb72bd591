//! `cairn fs`: files and folders. Names travel over `fs.v1`, bytes over S3.

mod bytes;
mod door;
mod show;

use super::connection::Connection;
use crate::failure::{Code, Failure};
use crate::output::Output;
use clap::{Args, Subcommand};
use door::{Door, Located};
use fs_layer::v1;
use show::{Entries, NodeRow};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  cairn fs ls /                            the buckets and folders of the tenant
  cairn fs put report.pdf /demo/2026/      upload into the bucket `demo`
  cairn fs ls /demo/2026/ -o json
  cairn fs get /demo/2026/report.pdf .
  cairn fs mv /demo/2026/report.pdf /demo/2026/final.pdf
  cairn fs mkdir --bucket /photos

A bucket is a flat folder: behind it, the rest of a path is one key, slashes included.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Fs {
    #[command(flatten)]
    connection: Connection,
    /// Whose files. Without it, the tenant of the key, or the one that the context file prefers.
    #[arg(long, global = true, env = "CAIRN_TENANT")]
    tenant: Option<String>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List a folder.
    #[command(after_help = "Examples:\n  cairn fs ls /\n  cairn fs ls /demo/photos/ -r\n  cairn fs ls /demo --limit 10 -o json")]
    Ls {
        /// The folder.
        #[arg(default_value = "/")]
        path: String,
        /// In a bucket: every key behind the path, not only the next level.
        #[arg(short, long)]
        recursive: bool,
        /// Most entries; 0: all.
        #[arg(long, default_value_t = 0)]
        limit: usize,
    },
    /// Show all that is known of a file or folder.
    #[command(after_help = "Examples:\n  cairn fs stat /demo/report.pdf\n  cairn fs stat /demo -o yaml")]
    Stat {
        /// The file or folder.
        path: String,
    },
    /// Upload a file into a bucket.
    #[command(after_help = "Examples:\n  cairn fs put report.pdf /demo/\n  cairn fs put report.pdf /demo/2026/final.pdf")]
    Put {
        /// The file here.
        file: PathBuf,
        /// Where it goes. With a slash at the end, it keeps its name.
        path: String,
    },
    /// Download a file from a bucket.
    #[command(
        after_help = "Examples:\n  cairn fs get /demo/report.pdf\n  cairn fs get /demo/report.pdf /tmp/\n  cairn fs get /demo/notes.txt -"
    )]
    Get {
        /// The file there.
        path: String,
        /// Where it goes here: a file, a folder, or - for standard output.
        #[arg(default_value = ".")]
        file: PathBuf,
    },
    /// Rename or move a file, or a folder of any size, at once.
    #[command(after_help = "Examples:\n  cairn fs mv /demo/a.txt /demo/b.txt\n  cairn fs mv /projects/old /projects/new")]
    Mv {
        /// What.
        from: String,
        /// Where to. With a slash at the end, it keeps its name.
        to: String,
        /// Take the place of what is there.
        #[arg(long)]
        replace: bool,
    },
    /// Delete a file, or a folder without entries.
    #[command(after_help = "Examples:\n  cairn fs rm /demo/a.txt\n  cairn fs rm /photos")]
    Rm {
        /// What.
        path: String,
    },
    /// Make a folder.
    #[command(after_help = "Examples:\n  cairn fs mkdir /projects\n  cairn fs mkdir --bucket /photos")]
    Mkdir {
        /// Its path; its parent must be there.
        path: String,
        /// A bucket: names are whole keys with slashes, as S3 has them.
        #[arg(long)]
        bucket: bool,
    },
}

impl Fs {
    pub(crate) async fn run(self, output: Output) -> Result<(), Failure> {
        let tenant = self.tenant.as_deref();
        match self.verb {
            Verb::Put { ref file, ref path } => {
                let (door, s3) = (self.door()?, self.connection.s3(tenant)?);
                bytes::put(&door, &s3, file, path, output).await
            }
            Verb::Get { ref path, ref file } => {
                let (door, s3) = (self.door()?, self.connection.s3(tenant)?);
                bytes::get(&door, &s3, path, file, output).await
            }
            Verb::Ls { ref path, recursive, limit } => output.show(&list(&self.door()?, path, recursive, limit).await?),
            Verb::Stat { ref path } => output.show(&NodeRow::from(self.door()?.stat(path).await?)),
            Verb::Mv { ref from, ref to, replace } => {
                let door = self.door()?;
                let to = &into_folder(from, to);
                let ask = v1::RenameRequest { header: Some(door.header()), from: place(from), to: place(to), replace };
                door.call(from, |mut client, request| async move { client.rename(request).await }, ask, true).await?;
                output.done(&format!("moved {from} to {to}"), &serde_json::json!({ "from": from, "to": to }))
            }
            Verb::Rm { ref path } => {
                let door = self.door()?;
                let ask = v1::DeleteRequest { header: Some(door.header()), place: place(path), precondition: None };
                door.call(path, |mut client, request| async move { client.delete(request).await }, ask, true).await?;
                output.done(&format!("deleted {path}"), &serde_json::json!({ "deleted": path }))
            }
            Verb::Mkdir { ref path, bucket } => {
                if bucket && !is_bucket_path(path) {
                    return Err(Failure::usage(format!("{path} can't be a bucket")).hint(
                        "a bucket is at the top and has a name that S3 allows: 3 to 63 of a-z 0-9 . -, a letter or digit at both ends",
                    ));
                }
                let door = self.door()?;
                let kind = if bucket { v1::NodeKind::FlatFolder } else { v1::NodeKind::TreeFolder };
                let ask = v1::CreateFolderRequest { header: Some(door.header()), place: place(path), kind: kind.into() };
                let made = door.call(path, |mut client, request| async move { client.create_folder(request).await }, ask, true).await?;
                let row = NodeRow::from(made.node.unwrap_or_default());
                output.done(&format!("made {} {path}", if bucket { "bucket" } else { "folder" }), &row)
            }
        }
    }

    fn door(&self) -> Result<Door, Failure> {
        let session = self.connection.tenant(self.tenant.as_deref())?;
        // The context file has a key of the tenant itself; a key that was given may be an operator's.
        Ok(Door::new(session, self.tenant.clone().filter(|_| self.connection.has_key())))
    }
}

/// A target that ends in a slash is the folder that takes the last name of the source.
fn into_folder(from: &str, to: &str) -> String {
    let name = from.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    if to.ends_with('/') { format!("{to}{name}") } else { to.to_owned() }
}

/// Whether S3 could name a bucket at this path: the general rules for bucket names, at the top.
fn is_bucket_path(path: &str) -> bool {
    let name = path.trim_matches('/').as_bytes();
    let plain = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    (3..=63).contains(&name.len())
        && name.iter().all(|c| plain(c) || matches!(c, b'.' | b'-'))
        && name.first().is_some_and(plain)
        && name.last().is_some_and(plain)
}

fn place(path: &str) -> Option<v1::Place> {
    Some(v1::Place { place: Some(v1::place::Place::Path(path.to_owned())) })
}

/// All pages of a listing.
async fn list(door: &Door, path: &str, recursive: bool, limit: usize) -> Result<Entries, Failure> {
    let (folder, prefix, flat) = match door.locate(path).await? {
        Located::Tree(folder) => (folder, String::new(), false),
        Located::Flat { folder, key } => (folder, key, true),
    };
    let mut entries = Entries::default();
    let mut continuation = String::new();
    loop {
        let ask = v1::ListRequest {
            header: Some(door.header()),
            folder: Some(v1::Target { target: Some(v1::target::Target::Path(folder.clone())) }),
            prefix: prefix.clone(),
            delimiter: if flat && !recursive { "/".to_owned() } else { String::new() },
            continuation,
            ..Default::default()
        };
        let page = door.call(path, |mut client, request| async move { client.list(request).await }, ask, false).await?;
        entries.add(&prefix, &page);
        if page.continuation.is_empty() || (limit > 0 && entries.len() >= limit) {
            break;
        }
        continuation = page.continuation;
    }
    if limit > 0 {
        entries.truncate(limit);
    }
    if !prefix.is_empty() && entries.len() == 0 {
        return Err(Failure::new(Code::NotFound, format!("nothing in {folder} has a name that begins with {prefix}"))
            .hint(format!("`cairn fs ls {folder}` shows what is there")));
    }
    Ok(entries)
}

/// The nodes that hold a file's bytes, as its record says now.
pub(crate) async fn copies(router: shard_router::Router, tenant: &str, path: &str) -> Result<Vec<u64>, metadb_proto::Error> {
    let tenant_id = router.tenant_named(tenant).await?.tenant_id();
    let namespace = fs_layer::Fs::new(router).namespace(tenant_id);
    let file = namespace.stat_path(path).await?;
    let mut nodes = std::collections::BTreeSet::new();
    for part in &file.content.0 {
        let now = namespace.content(&part.content_id).await?;
        nodes.extend(now.map_or_else(|| part.nodes.clone(), |info| info.part.nodes));
    }
    Ok(nodes.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::{into_folder, is_bucket_path};

    #[test]
    fn a_slash_at_the_end_keeps_the_name() {
        assert_eq!(into_folder("/demo/a/x.md", "/demo/2026/"), "/demo/2026/x.md");
        assert_eq!(into_folder("/projects/old/", "/archive/"), "/archive/old");
        assert_eq!(into_folder("/demo/a", "/demo/b"), "/demo/b");
    }

    #[test]
    fn only_what_s3_can_name_becomes_a_bucket() {
        assert!(["/photos", "my.bucket-1"].into_iter().all(is_bucket_path));
        assert!(!["/b", "/Bad_Name", "/projects/bk", "/-x-", "/"].into_iter().any(is_bucket_path));
    }
}
