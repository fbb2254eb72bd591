//! How answers are remembered for retries: as their messages of `fs.v1`.

use crate::driver::Answer;
use crate::model::{ContentInfo, Entry, FileInfo, PartInfo, UploadInfo};
use crate::v1;
use bytes::Bytes;
use metadb_proto::Error;
use prost::Message;

fn broken(why: impl std::fmt::Display) -> Error {
    Error::Corrupt { message: format!("remembered answer: {why}") }
}

macro_rules! answer {
    ($answer:ty, $message:ty) => {
        impl Answer for $answer {
            fn to_bytes(&self) -> Bytes {
                <$message>::from(self.clone()).encode_to_vec().into()
            }

            fn from_bytes(bytes: Bytes) -> Result<Self, Error> {
                <$message>::decode(bytes).map_err(broken)?.try_into()
            }
        }
    };
}

answer!(FileInfo, v1::Node);
answer!(Entry, v1::Entry);
answer!(UploadInfo, v1::Upload);
answer!(PartInfo, v1::Part);
answer!(ContentInfo, v1::ContentInfo);

impl Answer for () {
    fn to_bytes(&self) -> Bytes {
        Bytes::new()
    }

    fn from_bytes(_: Bytes) -> Result<Self, Error> {
        Ok(())
    }
}

impl Answer for bool {
    fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&[u8::from(*self)])
    }

    fn from_bytes(bytes: Bytes) -> Result<Self, Error> {
        Ok(bytes.first().is_some_and(|byte| *byte != 0))
    }
}
