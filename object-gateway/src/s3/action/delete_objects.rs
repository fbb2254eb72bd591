//! DeleteObjects: many keys, each with its own fate. The body's checksum, if one was sent, is verified before this.

use super::Answer;
use crate::s3::Gateway;
use crate::s3::error::{Subject, failed, refuse};
use crate::s3::limits::DELETE_KEYS;
use s3s::dto::{DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, Error as Told};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response};

pub(super) async fn run(gateway: &Gateway, request: S3Request<DeleteObjectsInput>) -> Answer<DeleteObjectsOutput> {
    let (namespace, _) = gateway.enter(&request)?;
    let input = request.input;
    let objects = input.delete.objects;
    if objects.is_empty() || objects.len() > DELETE_KEYS {
        return Err(refuse(S3ErrorCode::MalformedXML, format!("1 to {DELETE_KEYS} keys can be deleted at once, not {}", objects.len())));
    }
    let bucket = gateway.bucket(&namespace, &input.bucket).await?;
    let quiet = input.delete.quiet == Some(true);
    let mut output = DeleteObjectsOutput::default();
    let (mut deleted, mut errors, mut names) = (Vec::new(), Vec::new(), Vec::with_capacity(objects.len()));
    for object in objects {
        let version = object.version_id.filter(|version| !version.is_empty() && version != "null");
        if version.is_some() || object.e_tag.is_some() || object.size.is_some() || object.last_modified_time.is_some() {
            let error = refuse(S3ErrorCode::NotImplemented, "Versions and conditions of single keys are not implemented.");
            errors.push(told(object.key, &error));
        } else {
            names.push(object.key);
        }
    }
    let fates = match namespace.delete_many(bucket, &names).await {
        Ok(fates) => fates,
        Err(error) => return Err(gateway.failed_in(&namespace, (&input.bucket, bucket), Subject::Bucket, error).await),
    };
    for (name, fate) in names.into_iter().zip(fates) {
        match fate {
            Ok(_) if quiet => {}
            Ok(_) => deleted.push(DeletedObject { key: Some(name), ..Default::default() }),
            Err(error) => errors.push(told(name, &failed(Subject::Key, error))),
        }
    }
    output.deleted = (!deleted.is_empty()).then_some(deleted);
    output.errors = (!errors.is_empty()).then_some(errors);
    Ok(S3Response::new(output))
}

fn told(key: String, error: &S3Error) -> Told {
    Told { code: Some(error.code().as_str().to_owned()), key: Some(key), message: error.message().map(str::to_owned), version_id: None }
}
