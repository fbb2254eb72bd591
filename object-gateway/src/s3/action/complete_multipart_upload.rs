//! CompleteMultipartUpload: the parts become one object, in one transaction; no byte is moved.

use super::Answer;
use super::upload_part::{failed_upload, part_number};
use crate::s3::error::{Subject, refuse};
use crate::s3::limits::{MIN_PART_BYTES, OBJECT_BYTES, PARTS};
use crate::s3::{Gateway, conditions};
use fs_layer::{Completed, Namespace, PartInfo};
use metadb_proto::Error;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::{CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CompletedPart, ETag};
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result};
use std::collections::BTreeMap;

pub(super) async fn run(gateway: &Gateway, request: S3Request<CompleteMultipartUploadInput>) -> Answer<CompleteMultipartUploadOutput> {
    let (namespace, _) = gateway.enter(&request)?;
    let input = request.input;
    let precondition = conditions::precondition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
    let named = named_parts(input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default())?;
    let bucket = gateway.bucket(&namespace, &input.bucket).await?;
    let etag = match stored_parts(&namespace, bucket, &input.key, &input.upload_id).await {
        Ok(stored) => {
            let size = check(&named, &stored)?;
            if let Some(told) = input.mpu_object_size.filter(|told| u64::try_from(*told) != Ok(size)) {
                let message = format!("The provided x-amz-mp-object-size {told} does not match what the parts add up to: {size}");
                return Err(refuse(S3ErrorCode::InvalidRequest, message));
            }
            etag_of(&named)?
        }
        // Completed already, perhaps by the first attempt of this very request: then the object is there with this ETag.
        Err(Error::NotFound { .. }) => match namespace.stat_entry(bucket, &input.key).await {
            Ok(info) if etag_of(&named).is_ok_and(|etag| etag == info.etag) => info.etag,
            _ => {
                let error = Error::not_found("it was completed or aborted, or never begun");
                return Err(gateway.failed_in(&namespace, (&input.bucket, bucket), Subject::Upload, error).await);
            }
        },
        Err(error) => return Err(failed_upload(error)),
    };
    let completed = Completed { parts: named, etag: etag.clone(), precondition };
    match namespace.complete_upload(bucket, &input.key, &input.upload_id, completed).await {
        Ok(_) => {}
        Err(error @ Error::NotFound { .. }) => match namespace.stat_entry(bucket, &input.key).await {
            Ok(info) if info.etag == etag => {}
            _ => return Err(failed_upload(error)),
        },
        Err(Error::Invalid { field, .. }) if field == "parts.etag" => return Err(invalid_part()),
        Err(error) => return Err(failed_upload(error)),
    }
    Ok(S3Response::new(CompleteMultipartUploadOutput {
        location: Some(format!("/{}/{}", input.bucket, input.key)),
        bucket: Some(input.bucket),
        key: Some(input.key),
        e_tag: Some(ETag::Strong(etag)),
        ..Default::default()
    }))
}

fn invalid_part() -> s3s::S3Error {
    let message = "One or more of the specified parts could not be found. The part might not have been uploaded, or the specified entity tag might not have matched the part's entity tag.";
    refuse(S3ErrorCode::InvalidPart, message)
}

/// The parts that the request names: number and ETag, rising.
fn named_parts(parts: Vec<CompletedPart>) -> S3Result<Vec<(u32, String)>> {
    if parts.is_empty() || parts.len() > PARTS {
        return Err(refuse(S3ErrorCode::MalformedXML, format!("1 to {PARTS} parts make an object, not {}", parts.len())));
    }
    let mut named: Vec<(u32, String)> = Vec::with_capacity(parts.len());
    for part in parts {
        let number = part_number(part.part_number.unwrap_or_default())?;
        if named.last().is_some_and(|(last, _)| *last >= number) {
            return Err(refuse(
                S3ErrorCode::InvalidPartOrder,
                "The list of parts was not in ascending order. The parts list must be specified in order by part number.",
            ));
        }
        named.push((number, part.e_tag.ok_or_else(invalid_part)?.into_value()));
    }
    Ok(named)
}

/// All parts that the upload has: number, then size and ETag.
async fn stored_parts(namespace: &Namespace, bucket: u64, key: &str, upload_id: &str) -> Result<BTreeMap<u32, (u64, String)>, Error> {
    let mut stored = BTreeMap::new();
    loop {
        let after = stored.last_key_value().map_or(0, |(number, _)| *number);
        let page = namespace.list_parts(bucket, key, upload_id, after, PARTS).await?;
        let parts = page.parts.into_iter().map(|PartInfo { number, data, .. }| (number, (data.size, data.etag)));
        let before = stored.len();
        stored.extend(parts);
        if !page.more || stored.len() == before {
            return Ok(stored);
        }
    }
}

/// Checks what is named against what is stored. Gives the size of the object.
fn check(named: &[(u32, String)], stored: &BTreeMap<u32, (u64, String)>) -> S3Result<u64> {
    let mut total = 0_u64;
    for (index, (number, etag)) in named.iter().enumerate() {
        let (size, found) = stored.get(number).ok_or_else(invalid_part)?;
        if found != etag {
            return Err(invalid_part());
        }
        if *size < MIN_PART_BYTES && index + 1 < named.len() {
            let message = format!(
                "Your proposed upload is smaller than the minimum allowed size: part {number} has {size} bytes, at least {MIN_PART_BYTES}"
            );
            return Err(refuse(S3ErrorCode::EntityTooSmall, message));
        }
        total = total.saturating_add(*size);
    }
    if total > OBJECT_BYTES {
        return Err(refuse(S3ErrorCode::EntityTooLarge, format!("The object would have {total} bytes, at most {OBJECT_BYTES}")));
    }
    Ok(total)
}

/// MD5 of the parts' MD5s, and how many they are.
fn etag_of(named: &[(u32, String)]) -> S3Result<String> {
    let mut md5 = Md5::new();
    for (_, etag) in named {
        md5.update(&hex::decode(etag).map_err(|_| invalid_part())?);
    }
    Ok(format!("{}-{}", hex::encode(md5.finalize()), named.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: i32, etag: &str) -> CompletedPart {
        CompletedPart { part_number: Some(number), e_tag: Some(ETag::Strong(etag.into())), ..Default::default() }
    }

    fn code<T>(result: S3Result<T>) -> String {
        result.err().map_or("ok".into(), |e| e.code().as_str().to_owned())
    }

    #[test]
    fn the_etag_of_parts() {
        // md5(md5("a") md5("b"))
        let parts = [(1, "0cc175b9c0f1b6a831c399e269772661".to_owned()), (2, "92eb5ffee6ae2fec3ad71c777531578f".to_owned())];
        assert_eq!(
            etag_of(&parts).expect("hex"),
            "96a7b4f8e6b5cf0f4df1d6c7d5ee2c4c-2".replace("96a7b4f8e6b5cf0f4df1d6c7d5ee2c4c", &{
                let mut md5 = Md5::new();
                md5.update(&Md5::checksum(b"a"));
                md5.update(&Md5::checksum(b"b"));
                hex::encode(md5.finalize())
            })
        );
        assert_eq!(code(etag_of(&[(1, "no hex".into())])), "InvalidPart");
    }

    #[test]
    fn order_presence_and_sizes() {
        assert_eq!(code(named_parts(vec![part(1, "a"), part(3, "b")])), "ok");
        assert_eq!(code(named_parts(vec![part(2, "a"), part(2, "b")])), "InvalidPartOrder");
        assert_eq!(code(named_parts(vec![part(0, "a")])), "InvalidArgument");
        assert_eq!(code(named_parts(vec![])), "MalformedXML");
        let stored: BTreeMap<u32, (u64, String)> = [(1, (MIN_PART_BYTES, "a".into())), (2, (7, "b".into())), (3, (7, "c".into()))].into();
        let named = |parts: &[(u32, &str)]| parts.iter().map(|(n, e)| (*n, (*e).to_owned())).collect::<Vec<_>>();
        assert_eq!(check(&named(&[(1, "a"), (2, "b")]), &stored).ok(), Some(MIN_PART_BYTES + 7));
        assert_eq!(code(check(&named(&[(2, "b"), (3, "c")]), &stored)), "EntityTooSmall");
        assert_eq!(code(check(&named(&[(1, "x")]), &stored)), "InvalidPart");
        assert_eq!(code(check(&named(&[(9, "x")]), &stored)), "InvalidPart");
    }
}
