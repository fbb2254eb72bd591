//! Each limit refuses one past it, accepts it, and tells field, limit and value.

use super::*;
use bytes::Bytes;

fn header() -> Option<v1::RequestHeader> {
    Some(v1::RequestHeader { tenant_id: 1, ..Default::default() })
}

fn put(key: usize, value: usize) -> v1::Operation {
    let op = operation::Put { key: Bytes::from(vec![b'k'; key]), value: Bytes::from(vec![0; value]) };
    v1::Operation { op: Some(operation::Op::Put(op)) }
}

fn transact(operations: Vec<v1::Operation>) -> Result<(), Error> {
    check(&request::Body::Transact(v1::TransactRequest { header: header(), conditions: vec![], operations }))
}

fn refused(result: Result<(), Error>, field: &str) {
    let error = result.expect_err(field);
    let text = error.to_string();
    assert!(matches!(&error, Error::Invalid { field: f, .. } if f == field), "{text}");
    assert!(text.contains(field), "{text}");
}

#[test]
fn keys_and_values_at_the_limit_pass_and_one_past_it_is_refused() {
    transact(vec![put(KEY_BYTES, VALUE_BYTES)]).expect("at the limit");
    refused(transact(vec![put(KEY_BYTES + 1, 0)]), "operations.put.key");
    refused(transact(vec![put(0, 0)]), "operations.put.key");
    refused(transact(vec![put(1, VALUE_BYTES + 1)]), "operations.put.value");
}

#[test]
fn transactions_are_bounded_in_bytes_and_in_operations() {
    refused(transact((0..5).map(|_| put(1, VALUE_BYTES)).collect()), "transaction");
    transact((0..TRANSACTION_OPERATIONS).map(|_| put(1, 0)).collect()).expect("at the limit");
    refused(transact((0..=TRANSACTION_OPERATIONS).map(|_| put(1, 0)).collect()), "conditions and operations together");
}

#[test]
fn pages_are_bounded() {
    let limit = u32::try_from(PAGE_ROWS).expect("small") + 1;
    let scan = v1::ScanRequest { header: header(), limit, ..Default::default() };
    refused(check(&request::Body::Scan(scan)), "limit");
    let keys = vec![Bytes::from_static(b"k"); PAGE_ROWS + 1];
    refused(check(&request::Body::MultiGet(v1::MultiGetRequest { header: header(), keys, read: None })), "keys");
}

#[test]
fn a_request_without_header_or_with_a_short_request_id_is_refused() {
    refused(check(&request::Body::Get(v1::GetRequest { key: Bytes::from_static(b"k"), ..Default::default() })), "header");
    let header = Some(v1::RequestHeader { request_id: Bytes::from_static(b"short"), ..Default::default() });
    refused(check(&request::Body::Get(v1::GetRequest { header, key: Bytes::from_static(b"k"), read: None })), "header.request_id");
}
