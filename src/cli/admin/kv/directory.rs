//! The directory's rows, decoded: for the eyes of an operator. Its keys' secrets are never shown, and nothing is changed here.

use super::{Row, Rows, Verb, escape, scan};
use crate::cli::connection::Session;
use crate::failure::Failure;
use crate::output::Output;
use metadb_proto::directory::DIRECTORY_TENANT;
use metadb_proto::tuple::{self, Element};
use metadb_proto::v1;
use prost::Message;

/// Does a verb on the directory.
pub(super) async fn run(verb: Verb, session: &Session, output: Output) -> Result<(), Failure> {
    let client = session.router().tenant(DIRECTORY_TENANT);
    match verb {
        Verb::Get { key } => {
            let row = client.get(key.clone()).await?;
            let row = row.ok_or_else(|| metadb_proto::Error::not_found(format!("the key {} of the directory", escape(&key))))?;
            let row = told(&row);
            output.done(&row.value, &row)
        }
        Verb::Scan { prefix, limit, reverse } => {
            let rows = scan(&client, &prefix, limit, reverse).await?;
            output.show(&Rows(rows.iter().map(told).collect()))
        }
        Verb::Put { .. } | Verb::Delete { .. } => Err(Failure::usage("the directory is not changed by hand")
            .hint("use the verbs that know what belongs together: `cairn admin node`, `group`, `tenant`, `key`")),
    }
}

fn told(row: &v1::KeyValue) -> Row {
    let elements: Vec<Element<'_>> = tuple::unpack(&row.key).unwrap_or_default();
    let kind = if let Some(Element::String(kind)) = elements.first() { kind.as_ref() } else { "" };
    let key = if elements.is_empty() { escape(&row.key) } else { elements.iter().map(element).collect::<Vec<_>>().join(" ") };
    Row { key, value: value(kind, &row.value), version: row.version }
}

fn element(element: &Element<'_>) -> String {
    if let Element::String(text) = element {
        text.to_string()
    } else if let Element::Bytes(bytes) = element {
        format!("\"{}\"", escape(bytes))
    } else if let Element::Int(number) = element {
        number.to_string()
    } else {
        format!("{element:?}")
    }
}

fn value(kind: &str, bytes: &[u8]) -> String {
    match kind {
        "cluster" => record::<v1::ClusterRecord>(bytes),
        "node" => record::<v1::NodeRecord>(bytes),
        "group" => record::<v1::GroupRecord>(bytes),
        "pod" => record::<v1::PodRecord>(bytes),
        "tenant" => record::<v1::TenantRecord>(bytes),
        "shard" => record::<v1::ShardRecord>(bytes),
        // Shown by a Debug that leaves the secret out; one that does not decode is not shown at all, for it may hold one.
        "key" => v1::KeyRecord::decode(bytes).map_or_else(|_| "a record that this build can't read".to_owned(), |key| format!("{key:?}")),
        "counter" | "tenant_name" => {
            <[u8; 8]>::try_from(bytes).map_or_else(|_| escape(bytes), |number| u64::from_be_bytes(number).to_string())
        }
        _ => escape(bytes),
    }
}

fn record<R: Message + Default + std::fmt::Debug>(bytes: &[u8]) -> String {
    R::decode(bytes).map_or_else(|_| escape(bytes), |record| format!("{record:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use metadb_proto::directory;

    #[test]
    fn records_are_decoded_and_secrets_are_not_told() {
        let row = |key: Vec<u8>, value: Vec<u8>| told(&v1::KeyValue { key: key.into(), value: value.into(), version: 3 });
        let tenant = v1::TenantRecord { tenant_id: 7, name: "acme".into(), ..Default::default() };
        let shown = row(directory::tenant_key(7), tenant.encode_to_vec());
        assert_eq!((shown.key.as_str(), shown.value.contains("name: \"acme\"")), ("tenant 7", true), "{shown:?}");
        let key = v1::KeyRecord { access_key_id: "AK".into(), secret: "hunter2".into(), ..Default::default() };
        let shown = row(directory::access_key_key("AK"), key.encode_to_vec());
        assert!(shown.key == "key AK" && shown.value.contains("AK") && !shown.value.contains("hunter2"), "{shown:?}");
        let broken = row(directory::access_key_key("AK"), b"\xffhunter2".to_vec());
        assert!(!broken.value.contains("hunter2"), "{broken:?}");
        assert_eq!(row(directory::counter_key("node"), 5_u64.to_be_bytes().to_vec()).value, "5");
        let shard = row(directory::shard_key(7, b"a\0"), v1::ShardRecord { group_id: 4, ..Default::default() }.encode_to_vec());
        assert!(shard.key == "shard 7 \"a\\x00\"" && shard.value.contains("group_id: 4"), "{shard:?}");
        assert_eq!(row(b"\xfe\xfd".to_vec(), b"\0".to_vec()).value, "\\x00");
    }
}
