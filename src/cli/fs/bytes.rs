//! Bytes of files, to and from a bucket.

use super::door::Door;
use crate::cli::connection::S3Session;
use crate::demo::read_part;
use crate::failure::Failure;
use crate::output::{self, Output, Progress, size};
use crate::s3_client::{Ask, PART_BYTES, S3Client};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

/// Files from this size on show their progress.
const PROGRESS_FROM: u64 = 2 * PART_BYTES as u64;

/// Uploads a file.
pub(super) async fn put(door: &Door, s3: &S3Session, file: &Path, path: &str, output: Output) -> Result<(), Failure> {
    let unreadable = |error: std::io::Error| Failure::io("read", file, &error);
    let mut source = std::fs::File::open(file).map_err(unreadable)?;
    let facts = source.metadata().map_err(unreadable)?;
    if !facts.is_file() {
        return Err(Failure::usage(format!("{} is not a file", file.display()))
            .hint("for a whole folder use rclone or aws-cli with the S3 endpoint"));
    }
    let (bucket, mut key) = door.bucket(path).await?;
    if key.is_empty() || key.ends_with('/') {
        let name = file.file_name().and_then(|name| name.to_str());
        key.push_str(
            name.ok_or_else(|| Failure::usage(format!("{} has no name that can be kept", file.display())).hint("name the target"))?,
        );
    }
    let client = S3Client::new(&s3.endpoints, &s3.region, &s3.key)?;
    let progress = (facts.len() >= PROGRESS_FROM).then(|| Progress::bytes("upload", facts.len()));
    let advance = |bytes: usize| progress.iter().for_each(|progress| progress.advance(bytes as u64));
    let first = read_part(&mut source).map_err(unreadable)?;
    let mut bytes = first.len() as u64;
    if first.len() < PART_BYTES {
        client.put(0, &bucket, &key, first).await.map_err(Failure::from)?;
    } else {
        let upload = client.create_upload(0, &bucket, &key).await.map_err(Failure::from)?.value;
        let sent = send_parts(&client, &bucket, (&key, &upload), first, &mut source, &advance).await;
        let (etags, sent) = match sent {
            Ok(sent) => sent,
            Err(failure) => {
                // Best effort: the parts would cost space until somebody looks.
                let _ = client.ask(0, &bucket, Ask::AbortUpload { key: &key, upload: &upload }).await;
                return Err(failure);
            }
        };
        bytes = sent;
        let ask = Ask::CompleteUpload { key: &key, upload: &upload, etags: &etags };
        client.complete_upload(0, &bucket, ask, bytes).await.map_err(Failure::from)?;
    }
    progress.into_iter().for_each(Progress::finish);
    let told = serde_json::json!({ "bucket": bucket, "key": key, "bytes": bytes });
    output.done(&format!("uploaded {} to /{bucket}/{key} ({})", file.display(), size(bytes)), &told)
}

/// Sends all parts; gives their entity tags and how many bytes they had.
async fn send_parts(
    client: &S3Client,
    bucket: &str,
    (key, upload): (&str, &str),
    first: ::bytes::Bytes,
    source: &mut std::fs::File,
    advance: &impl Fn(usize),
) -> Result<(Vec<String>, u64), Failure> {
    let (mut part, mut etags, mut bytes) = (first, Vec::new(), 0);
    while !part.is_empty() {
        let length = part.len();
        let number = u16::try_from(etags.len() + 1).map_err(|_| Failure::failed("the file has too many parts"))?;
        let ask = Ask::PutPart { key, upload, number, body: part };
        etags.push(client.put_part(0, bucket, ask).await.map_err(Failure::from)?.value);
        bytes += length as u64;
        advance(length);
        part = read_part(source).map_err(|error| Failure::failed(format!("can't read on: {error}")))?;
    }
    Ok((etags, bytes))
}

/// Downloads a file: to a draft beside its place, which takes the place once it is whole.
pub(super) async fn get(door: &Door, s3: &S3Session, path: &str, file: &Path, output: Output) -> Result<(), Failure> {
    let (bucket, key) = door.bucket(path).await?;
    if key.is_empty() || key.ends_with('/') {
        return Err(Failure::usage(format!("{path} names no file")).hint(format!("`cairn fs ls {path}` shows what is there")));
    }
    let client = S3Client::new(&s3.endpoints, &s3.region, &s3.key)?;
    if file == Path::new("-") {
        return to_standard_output(&client, &bucket, &key).await;
    }
    let name = key.rsplit('/').next().unwrap_or(&key);
    let place = if file.is_dir() { file.join(name) } else { file.to_owned() };
    let unwritable = |error: std::io::Error| Failure::io("write", &place, &error);
    let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // As the system would make it: the person's own mask decides who may read it.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    let mut draft = tempfile::Builder::new().permissions(open).tempfile_in(folder).map_err(unwritable)?;
    let sink = |bytes: Option<&[u8]>| match bytes {
        Some(bytes) => draft.as_file_mut().write_all(bytes),
        None => {
            let file = draft.as_file_mut();
            file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).map(|_| ())
        }
    };
    let took = client.get(0, &bucket, &key, sink).await.map_err(Failure::from)?;
    draft.persist(&place).map_err(|error| unwritable(error.error))?;
    let told = serde_json::json!({ "bucket": bucket, "key": key, "bytes": took.value, "file": place });
    output.done(&format!("downloaded {path} to {} ({})", place.display(), size(took.value)), &told)
}

/// What is printed can't be taken back: after a break, only what was not yet printed is.
async fn to_standard_output(client: &S3Client, bucket: &str, key: &str) -> Result<(), Failure> {
    let (mut printed, mut at) = (0_usize, 0_usize);
    let sink = |bytes: Option<&[u8]>| {
        let Some(bytes) = bytes else {
            at = 0;
            return Ok(());
        };
        let skip = printed.saturating_sub(at).min(bytes.len());
        at += bytes.len();
        printed = printed.max(at);
        output::bytes(&bytes[skip..]).map_err(|failure| std::io::Error::other(failure.message))
    };
    client.get(0, bucket, key, sink).await.map(|_| ()).map_err(Failure::from)
}
