//! The last settings known, in a file: a node that starts while the directory is away goes on with them. It is only a memory; an
//! unreadable file is no memory.

use metadb_proto::v1::SettingsSnapshot;
use prost::Message as _;
use shard_router::settings::Keep;
use std::path::{Path, PathBuf};

/// The format that this build writes and reads: the number, a checksum of the rest, the rest.
const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 5;

/// Keeps settings in a file.
pub(super) struct KeptSettings {
    file: PathBuf,
}

impl KeptSettings {
    pub(super) fn new(file: PathBuf) -> Self {
        KeptSettings { file }
    }
}

fn encode(snapshot: &SettingsSnapshot) -> Vec<u8> {
    let body = snapshot.encode_to_vec();
    [&[FORMAT][..], &crc32c::crc32c(&body).to_le_bytes(), &body].concat()
}

fn decode(bytes: &[u8]) -> Option<SettingsSnapshot> {
    let (header, body) = bytes.split_at_checked(HEADER_BYTES)?;
    let whole = header[0] == FORMAT && header[1..] == crc32c::crc32c(body).to_le_bytes();
    SettingsSnapshot::decode(body).ok().filter(|_| whole)
}

fn read(file: &Path) -> Option<SettingsSnapshot> {
    let kept = decode(&std::fs::read(file).ok()?);
    if kept.is_none() {
        tracing::warn!(file = %file.display(), "the settings kept here can't be read; the defaults hold until the directory answers");
    }
    kept
}

impl Keep for KeptSettings {
    fn kept(&self) -> Option<SettingsSnapshot> {
        read(&self.file)
    }

    fn keep(&self, snapshot: SettingsSnapshot) -> futures::future::BoxFuture<'_, ()> {
        let file = self.file.clone();
        Box::pin(async move {
            let written = tokio::task::spawn_blocking(move || crate::datadir::write_durably(&file, &encode(&snapshot))).await;
            if let Ok(Err(failure)) = written {
                tracing::warn!(%failure, "settings are not kept for the next start");
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metadb_proto::v1::SettingRecord;

    #[tokio::test]
    async fn what_was_kept_is_there_again_and_a_damaged_file_is_no_memory() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("settings");
        let keep = KeptSettings::new(file.clone());
        assert_eq!(keep.kept(), None);
        let record = SettingRecord { name: "tenant.weight".into(), value: "7".into(), ..SettingRecord::default() };
        let snapshot = SettingsSnapshot { revision: 3, records: vec![record] };
        keep.keep(snapshot.clone()).await;
        assert_eq!(keep.kept(), Some(snapshot));
        let mut bytes = std::fs::read(&file).expect("there");
        for damaged in 0..bytes.len() {
            bytes[damaged] ^= 1;
            std::fs::write(&file, &bytes).expect("written");
            assert_eq!(keep.kept(), None, "byte {damaged}");
            bytes[damaged] ^= 1;
        }
        std::fs::write(&file, &bytes[..3]).expect("written");
        assert_eq!(keep.kept(), None);
    }
}
