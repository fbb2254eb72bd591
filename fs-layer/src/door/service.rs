//! The methods of `fs.v1`, one after the other: admit, translate, call, translate.

use super::{FsDoor, absent, convert, place, target_id};
use crate::model::{Completed, FileVersion, ListOptions, NewUpload, PartInfo, UploadOptions};
use crate::{ROOT, v1};
use metadb_proto::Error;
use tonic::{Request, Response, Status};
use v1::target::Target as T;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl v1::fs_server::Fs for FsDoor {
    async fn stat(&self, request: Request<v1::StatRequest>) -> Answer<v1::StatResponse> {
        let (namespace, request) = self.admit(request, |r| r.header.as_ref()).await?;
        let target = request.target.and_then(|target| target.target).unwrap_or(T::Id(ROOT));
        let info = match target {
            T::Id(id) => namespace.stat(id).await?,
            T::Path(path) => namespace.stat_path(&path).await?,
            T::Child(child) => namespace.stat_entry(child.parent_id, &child.name).await?,
        };
        Ok(Response::new(v1::StatResponse { node: Some(info.into()) }))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Answer<v1::ListResponse> {
        let (namespace, request) = self.admit(request, |r| r.header.as_ref()).await?;
        let folder = target_id(&namespace, "folder", request.folder).await?;
        let options = ListOptions {
            prefix: request.prefix,
            delimiter: request.delimiter,
            start_after: request.start_after,
            continuation: (!request.continuation.is_empty()).then_some(request.continuation),
            limit: request.limit as usize,
        };
        let listing = namespace.list(folder, options).await?;
        Ok(Response::new(v1::ListResponse {
            entries: listing.entries.into_iter().map(Into::into).collect(),
            common_prefixes: listing.common_prefixes,
            continuation: listing.continuation.unwrap_or_default(),
        }))
    }

    async fn create_folder(&self, request: Request<v1::CreateFolderRequest>) -> Answer<v1::CreateFolderResponse> {
        let (namespace, request) = self.admit(request, |r| r.header.as_ref()).await?;
        let kind = convert::folder_kind(request.kind())?;
        let (parent, name) = place(&namespace, "place", request.place).await?;
        let info = namespace.create_folder(parent, &name, kind).await?;
        Ok(Response::new(v1::CreateFolderResponse { node: Some(info.into()) }))
    }

    async fn put_file(&self, request: Request<v1::PutFileRequest>) -> Answer<v1::PutFileResponse> {
        let (namespace, request) = self.admit(request, |r| r.header.as_ref()).await?;
        let (parent, name) = place(&namespace, "place", request.place).await?;
        let mut version = FileVersion::try_from(request.version.ok_or_else(|| absent("version"))?)?.data;
        if version.author.is_empty() {
            version.author.clone_from(&namespace.author);
        }
        let info = namespace.put_file(parent, &name, version, convert::precondition(request.precondition)).await?;
        Ok(Response::new(v1::PutFileResponse { node: Some(info.into()) }))
    }

    async fn rename(&self, request: Request<v1::RenameRequest>) -> Answer<v1::RenameResponse> {
        let (namespace, request) = self.admit(request, |r| r.header.as_ref()).await?;
        let (from_parent, from_name) = place(&namespace, "from", request.from).await?;
        let (to_parent, to_name) = place(&namespace, "to", request.to).await?;
        let entry = namespace.rename(from_parent, &from_name, to_parent, &to_name, request.replace).await?;
        Ok(Response::new(v1::RenameResponse { entry: Some(entry.into()) }))
    }

    async fn delete(&self, request: Request<v1::DeleteRequest>) -> Answer<v1::DeleteResponse> {
        let (namespace, request) = self.admit(request, |r| r.header.as_ref()).await?;
        let (parent, name) = place(&namespace, "place", request.place).await?;
        let entry = namespace.delete(parent, &name, convert::precondition(request.precondition)).await?;
        Ok(Response::new(v1::DeleteResponse { entry: Some(entry.into()) }))
    }

    async fn delete_many(&self, request: Request<v1::DeleteManyRequest>) -> Answer<v1::DeleteManyResponse> {
        let (namespace, request) = self.admit(request, |r| r.header.as_ref()).await?;
        let folder = target_id(&namespace, "folder", request.folder).await?;
        let fates = namespace.delete_many(folder, &request.names).await?;
        let fate = |fate: Result<bool, Error>| match fate {
            Ok(deleted) => v1::delete_many_response::Fate { deleted, problem: String::new() },
            Err(error) => v1::delete_many_response::Fate { deleted: false, problem: error.to_string() },
        };
        Ok(Response::new(v1::DeleteManyResponse { fates: fates.into_iter().map(fate).collect() }))
    }

    async fn list_versions(&self, request: Request<v1::ListVersionsRequest>) -> Answer<v1::ListVersionsResponse> {
        let (namespace, request) = self.admit(request, |r| r.header.as_ref()).await?;
        let file = target_id(&namespace, "file", request.file).await?;
        let before = (request.before != 0).then_some(request.before);
        let versions = namespace.list_versions(file, before, request.limit as usize).await?;
        Ok(Response::new(v1::ListVersionsResponse { versions: versions.into_iter().map(Into::into).collect() }))
    }

    async fn get_content(&self, request: Request<v1::GetContentRequest>) -> Answer<v1::GetContentResponse> {
        let (namespace, request) = self.admit(request, |r| r.header.as_ref()).await?;
        let id = convert::bytes("content_id", &request.content_id)?;
        let info = namespace.content(&id).await?.ok_or_else(|| Error::not_found(format!("content {}", hex::encode(id))))?;
        Ok(Response::new(v1::GetContentResponse { content: Some(info.into()) }))
    }

    async fn create_upload(&self, request: Request<v1::CreateUploadRequest>) -> Answer<v1::CreateUploadResponse> {
        let (namespace, request) = self.admit(request, |r| r.header.as_ref()).await?;
        let (parent, name) = place(&namespace, "place", request.place).await?;
        let upload = NewUpload { content_type: request.content_type, attributes: request.attributes, author: namespace.author.clone() };
        let info = namespace.create_upload(parent, &name, upload).await?;
        Ok(Response::new(v1::CreateUploadResponse { upload: Some(info.into()) }))
    }

    async fn put_part(&self, request: Request<v1::PutPartRequest>) -> Answer<v1::PutPartResponse> {
        let (namespace, request) = self.admit(request, |r| r.header.as_ref()).await?;
        let (parent, name) = place(&namespace, "place", request.place).await?;
        let part = PartInfo::try_from(request.part.ok_or_else(|| absent("part"))?)?;
        let info = namespace.put_part(parent, &name, &request.upload_id, part.number, part.data).await?;
        Ok(Response::new(v1::PutPartResponse { part: Some(info.into()) }))
    }

    async fn list_parts(&self, request: Request<v1::ListPartsRequest>) -> Answer<v1::ListPartsResponse> {
        let (namespace, request) = self.admit(request, |r| r.header.as_ref()).await?;
        let (parent, name) = place(&namespace, "place", request.place).await?;
        let listing = namespace.list_parts(parent, &name, &request.upload_id, request.after, request.limit as usize).await?;
        Ok(Response::new(v1::ListPartsResponse { parts: listing.parts.into_iter().map(Into::into).collect(), more: listing.more }))
    }

    async fn list_uploads(&self, request: Request<v1::ListUploadsRequest>) -> Answer<v1::ListUploadsResponse> {
        let (namespace, request) = self.admit(request, |r| r.header.as_ref()).await?;
        let folder = target_id(&namespace, "folder", request.folder).await?;
        let options = UploadOptions {
            prefix: request.prefix,
            after_name: request.after_name,
            after_upload_id: request.after_upload_id,
            limit: request.limit as usize,
        };
        let listing = namespace.list_uploads(folder, options).await?;
        Ok(Response::new(v1::ListUploadsResponse { uploads: listing.uploads.into_iter().map(Into::into).collect(), more: listing.more }))
    }

    async fn complete_upload(&self, request: Request<v1::CompleteUploadRequest>) -> Answer<v1::CompleteUploadResponse> {
        let (namespace, request) = self.admit(request, |r| r.header.as_ref()).await?;
        let (parent, name) = place(&namespace, "place", request.place).await?;
        let completed = Completed {
            parts: request.parts.into_iter().map(|part| (part.number, part.etag)).collect(),
            etag: request.etag,
            precondition: convert::precondition(request.precondition),
        };
        let info = namespace.complete_upload(parent, &name, &request.upload_id, completed).await?;
        Ok(Response::new(v1::CompleteUploadResponse { node: Some(info.into()) }))
    }

    async fn abort_upload(&self, request: Request<v1::AbortUploadRequest>) -> Answer<v1::AbortUploadResponse> {
        let (namespace, request) = self.admit(request, |r| r.header.as_ref()).await?;
        let (parent, name) = place(&namespace, "place", request.place).await?;
        namespace.abort_upload(parent, &name, &request.upload_id).await?;
        Ok(Response::new(v1::AbortUploadResponse {}))
    }
}
