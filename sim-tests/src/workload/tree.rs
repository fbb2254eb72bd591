//! Folders and files that are made, renamed and deleted in one namespace.
//!
//! Each client changes only what it made itself, and puts it into folders that anybody made, which their makers meanwhile move below each
//! other and delete when they are empty: the material for cycles, orphans and torn renames. What was asked with an unknown outcome is
//! never touched again. Everything carries its mark as its owner.

use super::{Client, below, complete, invoke, think};
use checkers::Outcome;
use checkers::tree::{Call, Place, ROOT};
use fs_layer::{Content, FolderKind, Fs, Namespace, NewVersion, Precondition};
use metadb_proto::Error;
use std::time::Duration;

/// Longest pause between two requests of a client.
const THINK: Duration = Duration::from_millis(120);
/// How long a request may take.
const DEADLINE: Duration = Duration::from_secs(4);

/// Something that this client made and of which it knows where it is.
struct Owned {
    mark: String,
    id: u64,
    place: Place,
    folder: bool,
}

/// Changes the tree until told to stop.
pub async fn run(client: Client) {
    let namespace = Fs::new(client.routers[0].clone()).namespace(client.tenants[0]).with_deadline(DEADLINE);
    let mut owned: Vec<Owned> = Vec::new();
    let mut made = 0;
    while !client.shared.stopped() {
        think(THINK).await;
        let chosen = usize::try_from(below(owned.len().max(1) as u64)).unwrap_or(0);
        match below(10) {
            _ if owned.len() < 3 => {
                made += 1;
                owned.extend(create(&client, &namespace, made).await);
            }
            0..3 => {
                made += 1;
                owned.extend(create(&client, &namespace, made).await);
            }
            3..8 => {
                made += 1;
                let taken = owned.swap_remove(chosen);
                owned.extend(rename(&client, &namespace, taken, made).await);
            }
            _ => {
                let taken = owned.swap_remove(chosen);
                owned.extend(delete(&client, &namespace, taken).await);
            }
        }
    }
}

/// Any folder that is known to have been there.
fn any_folder(client: &Client) -> u64 {
    let folders = client.shared.folders.lock();
    let chosen = usize::try_from(below(folders.len() as u64 + 1)).unwrap_or(0);
    folders.get(chosen).copied().unwrap_or(ROOT)
}

async fn create(client: &Client, namespace: &Namespace, n: u64) -> Option<Owned> {
    let mark = format!("m{}-{n}", client.process);
    let place = Place { folder: any_folder(client), name: format!("n{}-{n}", client.process) };
    let folder = below(3) == 0;
    let id = invoke(client, &client.shared.files, &mark, Call::Create(place.clone()));
    let author = namespace.clone().with_author(mark.clone());
    let made = if folder {
        author.create_folder(place.folder, &place.name, FolderKind::Tree).await
    } else {
        let version = NewVersion { content: Content::default(), author: mark.clone(), ..NewVersion::default() };
        author.put_file(place.folder, &place.name, version, Precondition::Absent).await
    };
    let node = told(client, id, made)?;
    if folder {
        client.shared.folders.lock().push(node.id);
    }
    Some(Owned { mark, id: node.id, place, folder })
}

async fn rename(client: &Client, namespace: &Namespace, owned: Owned, n: u64) -> Option<Owned> {
    let to = Place { folder: any_folder(client), name: format!("n{}-{n}", client.process) };
    let from = owned.place.clone();
    let id = invoke(client, &client.shared.files, &owned.mark, Call::Rename { from: from.clone(), to: to.clone() });
    let renamed = namespace.rename(from.folder, &from.name, to.folder, &to.name, false).await;
    keep(client, id, renamed.map(|_| ()), owned, Some(to))
}

async fn delete(client: &Client, namespace: &Namespace, owned: Owned) -> Option<Owned> {
    let id = invoke(client, &client.shared.files, &owned.mark, Call::Delete(owned.place.clone()));
    let deleted = namespace.delete(owned.place.folder, &owned.place.name, Precondition::None).await;
    keep(client, id, deleted.map(|_| ()), owned, None)
}

/// Records the end; gives what was returned if it was acknowledged.
fn told<T>(client: &Client, id: checkers::OperationId, result: Result<T, Error>) -> Option<T> {
    let (outcome, value) = match result {
        Ok(value) => (Outcome::Ok(()), Some(value)),
        Err(error) => (outcome_of(client, &error), None),
    };
    complete(client, &client.shared.files, id, outcome);
    value
}

/// Records the end; gives what is still known and where it is: at the new place if acknowledged, at the old one if it failed.
fn keep(client: &Client, id: checkers::OperationId, result: Result<(), Error>, owned: Owned, to: Option<Place>) -> Option<Owned> {
    let outcome = match &result {
        Ok(()) => Outcome::Ok(()),
        Err(error) => outcome_of(client, error),
    };
    complete(client, &client.shared.files, id, outcome.clone());
    match (outcome, to) {
        (Outcome::Ok(()), Some(place)) => Some(Owned { place, ..owned }),
        (Outcome::Fail, _) => Some(owned),
        (Outcome::Ok(()), None) => {
            if owned.folder {
                client.shared.trace.event(format_args!("folder {} is gone", owned.id));
            }
            None
        }
        (Outcome::Unknown, _) => None,
    }
}

/// A folder below itself and a folder that is not empty are refused as invalid: that is an answer here, not a mistake.
fn outcome_of(client: &Client, error: &Error) -> Outcome<()> {
    match error {
        Error::Invalid { .. } => Outcome::Fail,
        Error::Conflict { .. }
        | Error::Moved { .. }
        | Error::Unavailable { .. }
        | Error::Exhausted { .. }
        | Error::UnknownOutcome { .. }
        | Error::NotFound { .. }
        | Error::AlreadyExists { .. }
        | Error::Denied { .. }
        | Error::Unauthenticated { .. }
        | Error::Suspended { .. }
        | Error::Corrupt { .. }
        | Error::Internal { .. } => client.shared.outcome_of(&"files", error),
    }
}
