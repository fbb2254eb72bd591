//! Round trips, and the bytes of every record as format 1 wrote them: they must stay readable for ever.

use super::*;
use crate::model::{Content, ContentInfo, ContentPart, Entry, NewPart, NewUpload, NewVersion, PartInfo, Released, UploadInfo};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn part() -> ContentPart {
    ContentPart { content_id: [1; 16], size_bytes: 300, blake3: [2; 32], nodes: vec![1, 2, 300] }
}

fn version() -> NewVersion {
    NewVersion {
        content: Content(vec![part()]),
        size: 300,
        etag: "e".into(),
        content_type: "t".into(),
        attributes: BTreeMap::from([("k".into(), "v".into())]),
        author: "a".into(),
    }
}

fn entry(kind: NodeKind, name: &str) -> Entry {
    Entry {
        parent: 5,
        name: name.into(),
        id: 300,
        kind,
        size: 7,
        version: 2,
        etag: "e".into(),
        content_type: "t".into(),
        modified_at_ms: 1000,
    }
}

const PART_HEX: &str =
    "0a100101010101010101010101010101010110ac021a200202020202020202020202020202020202020202020202020202020202020202220401 02ac02";

#[test]
fn bytes_of_format_1_are_frozen() {
    let part_hex = PART_HEX.replace(' ', "");
    let node = NodeRecord {
        kind: 3,
        parent: 5,
        name: "N".into(),
        owner: "o".into(),
        created_at_ms: 1,
        modified_at_ms: 2,
        size: 3,
        head_version: 4,
        flags: 5,
        ..NodeRecord::new()
    };
    let event = EventRecord {
        id: 9,
        node_kind: 3,
        parent: 1,
        name: "n".into(),
        from_parent: 2,
        from_name: "f".into(),
        version: 3,
        author: "a".into(),
        at_ms: 4,
        replaced_id: 5,
        ..EventRecord::new(EventKind::Renamed)
    };
    let info = PartInfo { number: 7, created_at_ms: 8, data: NewPart { content: Content(vec![part()]), size: 300, etag: "e".into() } };
    let data = NewUpload { content_type: "t".into(), attributes: BTreeMap::from([("k".into(), "v".into())]), author: "a".into() };
    let upload = UploadInfo { upload_id: hex::encode([3; 16]), parent: 5, name: "n".into(), created_at_ms: 8, data };
    let released = Released { ticket: Vec::new(), node_ids: vec![1, 300], content_ids: vec![[1; 16]], folder_ids: vec![2] };
    let golden = [
        (node.to_bytes(), "0801100318052 2014e2a016f300138024003480450 05".to_owned()),
        (EntryRecord::of(&entry(NodeKind::File, "n"), "n").to_row(), "00080110ac0218032807300 23a0165420174 48e807".to_owned()),
        (EntryRecord::of(&entry(NodeKind::Tree, "N"), "n").to_row(), "0316012c080110ac02180122014e280730023a0165420174 48e807".to_owned()),
        (VersionRecord::of(&version(), 1, 8).to_bytes(), format!("0801100118ac022201652a01743206 0a016b1201763a0161 40084a3d{part_hex}")),
        (ContentRecord::of(&part(), 2).to_bytes(), format!("0801123d{part_hex}1802")),
        (event.to_bytes(), "080110041809200328013201 6e3802420166480352016158046005".to_owned()),
        (UploadRecord::of(&upload).to_bytes(), "080112016e1a017422060a016b1201762a01613008".to_owned()),
        (PartRecord::of(&info).to_bytes(), format!("0801100718ac0222016528 08323d{part_hex}")),
        (ReleasedRecord::of(&released).expect("not empty").to_bytes(), format!("0801120301ac021a10{}220102", "01".repeat(16))),
        (RequestRecord::of("op", Bytes::from_static(b"x")).to_bytes(), "080112026f701a0178".to_owned()),
    ];
    for (index, (bytes, golden)) in golden.into_iter().enumerate() {
        assert_eq!(hex::encode(bytes), golden.replace(' ', ""), "record {index}");
    }
}

#[test]
fn records_of_a_newer_build_and_broken_ones_are_refused() {
    for bytes in [&[0x08, 0x02][..], &[], &[0xff]] {
        assert!(matches!(NodeRecord::from_bytes(Bytes::copy_from_slice(bytes)), Err(Error::Corrupt { .. })));
    }
    for row in [&[][..], &[9, 1]] {
        assert!(matches!(EntryRecord::from_row(&Bytes::copy_from_slice(row)), Err(Error::Corrupt { .. })));
    }
    // A field that this build does not know is skipped.
    assert!(NodeRecord::from_bytes(Bytes::from_static(&[0x08, 0x01, 0xf8, 0x07, 0x01])).is_ok());
}

fn any_part() -> impl Strategy<Value = ContentPart> {
    (any::<[u8; 16]>(), any::<u64>(), any::<[u8; 32]>(), prop::collection::vec(any::<u64>(), 1..4))
        .prop_map(|(content_id, size_bytes, blake3, nodes)| ContentPart { content_id, size_bytes, blake3, nodes })
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        parts in prop::collection::vec(any_part(), 0..4),
        texts in prop::collection::vec(".{0,8}", 5),
        attributes in prop::collection::btree_map(".{0,4}", ".{0,4}", 0..3),
        numbers in prop::collection::vec(1u64.., 5),
        kind in prop::sample::select(vec![NodeKind::Tree, NodeKind::Flat, NodeKind::File]),
    ) {
        let [name, etag, content_type, author, canonical] = <[String; 5]>::try_from(texts).expect("five");
        prop_assume!(!name.is_empty());
        let content = Content(parts.clone());
        let data = NewVersion { content: content.clone(), size: numbers[0], etag: etag.clone(), content_type: content_type.clone(), attributes: attributes.clone(), author: author.clone() };
        let read = VersionRecord::from_bytes(VersionRecord::of(&data, numbers[1], numbers[2]).to_bytes()).and_then(VersionRecord::into_version).expect("ours");
        prop_assert_eq!((read.number, read.created_at_ms, read.data), (numbers[1], numbers[2], data));

        let entry = Entry { parent: numbers[0], name: name.clone(), id: numbers[1], kind, size: numbers[2], version: numbers[3], etag: etag.clone(), content_type: content_type.clone(), modified_at_ms: numbers[4] };
        let row = EntryRecord::of(&entry, &canonical).to_row();
        let link = &row[1..1 + usize::from(row[0])];
        prop_assert_eq!(link, if kind == NodeKind::Tree { crate::keys::link(entry.id) } else { Vec::new() });
        prop_assert_eq!(EntryRecord::from_row(&row).and_then(|r| r.into_entry(numbers[0], &canonical)).expect("ours"), entry);

        let part = PartInfo { number: 9, created_at_ms: numbers[0], data: NewPart { content, size: numbers[1], etag } };
        prop_assert_eq!(PartRecord::from_bytes(PartRecord::of(&part).to_bytes()).and_then(PartRecord::into_info).expect("ours"), part);
        let upload = UploadInfo { upload_id: hex::encode([4; 16]), parent: numbers[0], name, created_at_ms: numbers[1], data: NewUpload { content_type, attributes, author } };
        prop_assert_eq!(UploadRecord::from_bytes(UploadRecord::of(&upload).to_bytes()).map(|r| r.into_info(numbers[0], &[4; 16])).expect("ours"), upload);
        for part in parts {
            let read = ContentRecord::from_bytes(ContentRecord::of(&part, numbers[0]).to_bytes()).and_then(ContentRecord::into_info);
            prop_assert_eq!(read.expect("ours"), ContentInfo { part, names: numbers[0] });
        }
    }
}
