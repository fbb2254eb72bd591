//! Continuations: encoding, and what a shard that was split since is asked for.

use super::*;

#[test]
fn a_cursor_survives_its_encoding_and_nonsense_is_refused() {
    let cursor = Cursor { start: "a".into(), end: "z".into(), part_start: "a".into(), part_end: "m".into(), continuation: "c".into() };
    assert_eq!(Cursor::decode(&cursor.encode()).expect("its own"), cursor);
    for cut in 0..8 {
        assert!(Cursor::decode(&cursor.encode().slice(..cut)).is_err(), "{cut}");
    }
    assert!(Cursor::decode(&Bytes::from_static(&[1, 0xff, 0xff])).is_err());
}

#[test]
fn a_shard_split_since_is_asked_anew_from_where_the_page_ended() {
    let scan = Scan::default();
    let cursor =
        Cursor { start: "g\0".into(), end: Bytes::new(), part_start: Bytes::new(), part_end: Bytes::new(), continuation: "said".into() };
    let part = Part { scan: &scan, cursor: &cursor, limit: 0, first: None };
    let whole = Place::whole(Some(1), 1);
    assert_eq!(part.of(&whole), (Bytes::new(), Bytes::new(), "said".into()));
    let split = Place { start: "c".into(), end: "m".into(), group_id: Some(1), epoch: 2 };
    assert_eq!(part.of(&split), ("g\0".into(), "m".into(), Bytes::new()));
}
