//! How files and folders are printed.

use crate::cli::time;
use crate::output::{Show, size};
use fs_layer::v1;
use serde::Serialize;
use std::collections::BTreeMap;

/// The entries of a folder.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Entries(Vec<EntryRow>);

#[derive(Debug, Serialize)]
struct EntryRow {
    name: String,
    kind: &'static str,
    size: Option<u64>,
    modified: Option<String>,
    etag: String,
    id: Option<u64>,
}

impl Entries {
    /// Takes a page in; in a bucket, names are told from the prefix on.
    pub(super) fn add(&mut self, prefix: &str, page: &v1::ListResponse) {
        let short = |name: &str| name.strip_prefix(prefix).filter(|rest| !rest.is_empty()).unwrap_or(name).to_owned();
        let folders = page.common_prefixes.iter().map(|name| EntryRow {
            name: short(name),
            kind: "prefix",
            size: None,
            modified: None,
            etag: String::new(),
            id: None,
        });
        let files = page.entries.iter().map(|entry| EntryRow {
            name: short(&entry.name),
            kind: kind(entry.kind()),
            size: (entry.kind() == v1::NodeKind::File).then_some(entry.size_bytes),
            modified: Some(time(entry.modified_at_ms)),
            etag: entry.etag.clone(),
            id: Some(entry.id),
        });
        self.0.extend(folders.chain(files));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn truncate(&mut self, limit: usize) {
        self.0.truncate(limit);
    }
}

impl Show for Entries {
    fn columns(&self) -> Vec<&'static str> {
        vec!["NAME", "KIND", "SIZE", "MODIFIED"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |entry: &EntryRow| {
            let bytes = entry.size.map(size).unwrap_or_default();
            vec![entry.name.clone(), entry.kind.to_owned(), bytes, entry.modified.clone().unwrap_or_default()]
        };
        self.0.iter().map(row).collect()
    }

    fn empty(&self) -> &'static str {
        "the folder is empty"
    }
}

/// A file or folder, with everything.
#[derive(Debug, Serialize)]
pub(super) struct NodeRow {
    id: u64,
    name: String,
    kind: &'static str,
    owner: String,
    created: String,
    modified: String,
    version: Option<VersionRow>,
}

#[derive(Debug, Serialize)]
struct VersionRow {
    number: u64,
    size: u64,
    etag: String,
    content_type: String,
    author: String,
    attributes: BTreeMap<String, String>,
    content: Vec<PartRow>,
}

#[derive(Debug, Serialize)]
struct PartRow {
    size: u64,
    blake3: String,
    nodes: Vec<u64>,
}

impl From<v1::Node> for NodeRow {
    fn from(node: v1::Node) -> Self {
        let part = |part: v1::ContentPart| PartRow { size: part.size_bytes, blake3: hex::encode(&part.blake3), nodes: part.node_ids };
        let kind = kind(node.kind());
        let version = node.version.map(|version| VersionRow {
            number: version.number,
            size: version.size_bytes,
            etag: version.etag,
            content_type: version.content_type,
            author: version.author,
            attributes: version.attributes.into_iter().collect(),
            content: version.content.into_iter().map(part).collect(),
        });
        NodeRow {
            id: node.id,
            name: if node.name.is_empty() { "/".to_owned() } else { node.name },
            kind,
            owner: node.owner,
            created: time(node.created_at_ms),
            modified: time(node.modified_at_ms),
            version,
        }
    }
}

impl Show for NodeRow {
    fn columns(&self) -> Vec<&'static str> {
        vec!["WHAT", "VALUE"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let mut rows = vec![
            ("name", self.name.clone()),
            ("kind", self.kind.to_owned()),
            ("id", self.id.to_string()),
            ("owner", self.owner.clone()),
            ("created", self.created.clone()),
            ("modified", self.modified.clone()),
        ];
        if let Some(version) = &self.version {
            rows.push(("version", version.number.to_string()));
            rows.push(("size", format!("{} ({})", version.size, size(version.size))));
            rows.push(("etag", version.etag.clone()));
            rows.push(("content type", version.content_type.clone()));
            rows.push(("author", version.author.clone()));
            rows.extend(version.attributes.iter().map(|(name, value)| ("attribute", format!("{name}: {value}"))));
            rows.extend(version.content.iter().map(|part| {
                let nodes: Vec<_> = part.nodes.iter().map(ToString::to_string).collect();
                ("content", format!("{} at nodes {}, BLAKE3 {}", size(part.size), nodes.join(" "), part.blake3))
            }));
        }
        rows.into_iter().filter(|(_, value)| !value.is_empty()).map(|(what, value)| vec![what.to_owned(), value]).collect()
    }
}

fn kind(kind: v1::NodeKind) -> &'static str {
    match kind {
        v1::NodeKind::Unspecified => "unknown",
        v1::NodeKind::TreeFolder => "folder",
        v1::NodeKind::FlatFolder => "bucket",
        v1::NodeKind::File => "file",
    }
}
