//! Deletes many files of a folder, as S3's DeleteObjects does: in transactions of bounded size, each file by itself there or not.

use super::Named;
use super::delete::remove_entry;
use crate::Namespace;
use crate::driver::{Answer, Context, Operation, Plan, Step, run};
use crate::limits::{DELETE_CHUNK, DELETE_MANY};
use crate::model::NodeKind;
use bytes::Bytes;
use metadb_proto::Error;
use std::collections::BTreeMap;

struct DeleteMany<'a> {
    parent: u64,
    names: &'a [String],
}

/// What became of each name of a chunk.
struct Fates(Vec<Fate>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Absent = 0,
    Deleted = 1,
    Folder = 2,
}

impl Namespace {
    /// Deletes files by name. Per name: whether there was one, or why it was not deleted (a folder is not). Not atomic as a whole.
    ///
    /// # Errors
    /// [`Error::Invalid`] for too many names, [`Error::NotFound`] if there is no such folder; and those of the database, after which some
    /// may be deleted.
    pub async fn delete_many(&self, parent: u64, names: &[String]) -> Result<Vec<Result<bool, Error>>, Error> {
        if names.len() > DELETE_MANY {
            return Err(Error::invalid("names", format!("at most {DELETE_MANY} names"), format!("{} names", names.len())));
        }
        let kind = self.reading().folder(parent).await?;
        let checked: Vec<Result<(), Error>> = names.iter().map(|name| Named::new("names", kind, parent, name).map(|_| ())).collect();
        let good: Vec<String> = names.iter().zip(&checked).filter(|(_, check)| check.is_ok()).map(|(name, _)| name.clone()).collect();
        let mut fates = Vec::with_capacity(good.len());
        for (index, chunk) in good.chunks(DELETE_CHUNK).enumerate() {
            fates.extend(run(&self.for_chunk(index), &DeleteMany { parent, names: chunk }).await?.0);
        }
        if fates.iter().all(|fate| *fate == Fate::Absent) {
            // A folder without these files and one that is gone look the same, and what is remembered of the kind does not tell.
            self.reading().must_exist(parent).await?;
        }
        let mut fates = fates.into_iter();
        let fate = |check: Result<(), Error>| {
            check?;
            match fates.next() {
                Some(Fate::Deleted) => Ok(true),
                Some(Fate::Absent) => Ok(false),
                Some(Fate::Folder) => Err(Error::invalid("names", "names of files", "the name of a folder")),
                None => Err(Error::internal("a name was forgotten")),
            }
        };
        Ok(checked.into_iter().map(fate).collect())
    }

    /// The same, with a request id of its own for each chunk.
    fn for_chunk(&self, index: usize) -> Namespace {
        let mut namespace = self.clone();
        if let Some(id) = &mut namespace.request_id {
            *id = (u128::from_be_bytes(*id) ^ index as u128).to_be_bytes();
        }
        namespace
    }
}

impl Operation for DeleteMany<'_> {
    const NAME: &'static str = "delete_many";
    type Answer = Fates;

    async fn attempt(&self, context: &Context<'_>) -> Result<Step<Fates>, Error> {
        let kind = context.folder(self.parent).await?;
        let named = self.names.iter().map(|name| Named::new("names", kind, self.parent, name)).collect::<Result<Vec<_>, _>>()?;
        // The same name twice is asked, and deleted, once.
        let unique: BTreeMap<Vec<u8>, usize> = named.iter().enumerate().rev().map(|(index, named)| (named.key(), index)).collect();
        let rows = context.db.multi_get(unique.keys().cloned().collect()).await?;
        let mut plan = Plan::new(Fates(vec![Fate::Absent; named.len()]));
        for (index, row) in unique.into_values().zip(&rows) {
            let Some(named) = named.get(index) else { continue };
            let Some((entry, version)) = named.read(row.as_ref())? else { continue };
            let fate = if entry.kind == NodeKind::File { Fate::Deleted } else { Fate::Folder };
            if fate == Fate::Deleted {
                remove_entry(&mut plan, named, &entry, version);
            }
            if let Some(slot) = plan.answer.0.get_mut(index) {
                *slot = fate;
            }
        }
        Ok(if plan.operations.is_empty() { Step::Done(plan.answer) } else { Step::Commit(plan) })
    }
}

impl Answer for Fates {
    fn to_bytes(&self) -> Bytes {
        self.0.iter().map(|fate| *fate as u8).collect::<Vec<u8>>().into()
    }

    fn from_bytes(bytes: Bytes) -> Result<Self, Error> {
        let fate = |byte: &u8| match byte {
            0 => Ok(Fate::Absent),
            1 => Ok(Fate::Deleted),
            2 => Ok(Fate::Folder),
            other => Err(Error::Corrupt { message: format!("remembered answer: fate {other}") }),
        };
        bytes.iter().map(fate).collect::<Result<_, _>>().map(Fates)
    }
}
