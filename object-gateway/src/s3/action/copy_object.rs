//! CopyObject: the new name shares the source's contents; no byte is moved.

use super::{Answer, source_of};
use crate::s3::conditions::{Conditions, etag, last_modified};
use crate::s3::error::{Subject, refuse};
use crate::s3::metadata::Described;
use crate::s3::{Gateway, metadata};
use fs_layer::{FileInfo, Namespace, NewVersion, NodeKind, Precondition};
use metadb_proto::Error;
use s3s::dto::{ChecksumType, CopyObjectInput, CopyObjectOutput, CopyObjectResult, MetadataDirective};
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result};

pub(super) async fn run(gateway: &Gateway, request: S3Request<CopyObjectInput>) -> Answer<CopyObjectOutput> {
    let (namespace, _) = gateway.enter(&request)?;
    let mut input = request.input;
    let (source_bucket, source_key) = source_of(&input.copy_source)?;
    let replace = match input.metadata_directive.as_ref().map(MetadataDirective::as_str) {
        None | Some(MetadataDirective::COPY) => false,
        Some(MetadataDirective::REPLACE) => true,
        Some(other) => return Err(refuse(S3ErrorCode::InvalidArgument, format!("Unknown metadata directive: {other}"))),
    };
    if !replace && source_bucket == input.bucket && source_key == input.key {
        let message =
            "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata.";
        return Err(refuse(S3ErrorCode::InvalidRequest, message));
    }
    let source = stat_source(gateway, &namespace, &source_bucket, &source_key).await?;
    let conditions = Conditions {
        if_match: input.copy_source_if_match.take(),
        if_none_match: input.copy_source_if_none_match.take(),
        if_modified_since: input.copy_source_if_modified_since.take(),
        if_unmodified_since: input.copy_source_if_unmodified_since.take(),
    };
    conditions.check_source(&source)?;
    let target = gateway.bucket(&namespace, &input.bucket).await?;
    let version = version_of(&source, replace.then(|| describe(&mut input)))?;
    let naming = namespace.clone().naming_known_contents();
    let copied = match naming.put_file(target, &input.key, version, Precondition::None).await {
        Ok(copied) => copied,
        Err(error) => return Err(gateway.failed_in(&namespace, (&input.bucket, target), Subject::Key, error).await),
    };
    let sums = metadata::checksums_of(&copied);
    let any = copied.attributes.keys().any(|name| name.starts_with("checksum."));
    let result = CopyObjectResult {
        e_tag: etag(&copied.etag),
        last_modified: last_modified(&copied),
        checksum_crc32: sums.checksum_crc32,
        checksum_crc32c: sums.checksum_crc32c,
        checksum_crc64nvme: sums.checksum_crc64nvme,
        checksum_sha1: sums.checksum_sha1,
        checksum_sha256: sums.checksum_sha256,
        checksum_type: any.then(|| ChecksumType::from_static(ChecksumType::FULL_OBJECT)),
    };
    Ok(S3Response::new(CopyObjectOutput { copy_object_result: Some(result), ..Default::default() }))
}

/// The object that a copy reads.
pub(super) async fn stat_source(gateway: &Gateway, namespace: &Namespace, bucket: &str, key: &str) -> S3Result<FileInfo> {
    let folder = gateway.bucket(namespace, bucket).await?;
    let found = match namespace.stat_entry(folder, key).await {
        Ok(info) if info.kind == NodeKind::File => Ok(info),
        Ok(_) => Err(Error::not_found("a folder")),
        Err(error) => Err(error),
    };
    match found {
        Ok(info) => Ok(info),
        Err(error) => Err(gateway.failed_in(namespace, (bucket, folder), Subject::Key, error).await),
    }
}

/// The same bytes, with the source's description or a new one. Checksums are of the bytes, so they stay.
fn version_of(source: &FileInfo, new: Option<Described>) -> S3Result<NewVersion> {
    let (content_type, attributes) = match new {
        None => (source.content_type.clone(), source.attributes.clone()),
        Some(described) => {
            let (content_type, mut attributes) = described.into_attributes()?;
            let kept = source.attributes.iter().filter(|(name, _)| name.starts_with("checksum."));
            attributes.extend(kept.map(|(name, sum)| (name.clone(), sum.clone())));
            (content_type, attributes)
        }
    };
    let (content, size, etag) = (source.content.clone(), source.size, source.etag.clone());
    Ok(NewVersion { content, size, etag, content_type, attributes, author: String::new() })
}

fn describe(input: &mut CopyObjectInput) -> Described {
    Described {
        content_type: input.content_type.take(),
        cache_control: input.cache_control.take(),
        content_disposition: input.content_disposition.take(),
        content_encoding: input.content_encoding.take(),
        content_language: input.content_language.take(),
        expires: input.expires.take(),
        metadata: input.metadata.take(),
    }
}
