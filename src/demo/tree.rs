//! The files of a folder, and what of it can't be uploaded.

use crate::failure::Failure;
use std::path::{Path, PathBuf};

/// Longest key of an S3 object, in bytes.
const KEY_BYTES: usize = 1024;

/// One file to upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TreeFile {
    pub(crate) path: PathBuf,
    /// The path within the folder, with slashes: the key of the object.
    pub(crate) key: String,
    pub(crate) bytes: u64,
}

/// What was found in a folder.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    pub(crate) files: Vec<TreeFile>,
    pub(crate) bytes: u64,
    /// Links, devices, and names that no object can have: S3 has none of them.
    pub(crate) skipped: u64,
}

/// Walks a folder; its files come in a fixed order. Symbolic links are not followed.
pub(crate) fn walk(folder: &Path, max_files: usize) -> Result<Tree, Failure> {
    let mut tree = Tree::default();
    let mut pending = vec![folder.to_owned()];
    while let Some(at) = pending.pop() {
        let entries = std::fs::read_dir(&at).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) if at == folder => return Err(Failure::io("read the folder", folder, &error)),
            Err(_) => {
                tree.skipped += 1;
                continue;
            }
        };
        // In reverse, because folders are taken from the end.
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.file_name()));
        for entry in entries.iter().rev() {
            tree.take(folder, &entry.path());
        }
        let folders = entries.iter().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        pending.extend(folders.map(std::fs::DirEntry::path));
        if max_files > 0 && tree.files.len() >= max_files {
            tree.files.truncate(max_files);
            break;
        }
    }
    tree.bytes = tree.files.iter().map(|file| file.bytes).sum();
    Ok(tree)
}

impl Tree {
    fn take(&mut self, folder: &Path, path: &Path) {
        let Ok(facts) = std::fs::symlink_metadata(path) else {
            self.skipped += 1;
            return;
        };
        if facts.is_dir() {
            return;
        }
        let key = path.strip_prefix(folder).ok().and_then(Path::to_str).map(str::to_owned);
        match key.filter(|key| facts.is_file() && key.len() <= KEY_BYTES && !key.chars().any(char::is_control)) {
            Some(key) => self.files.push(TreeFile { path: path.to_owned(), key, bytes: facts.len() }),
            None => self.skipped += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_in_order_and_links_are_counted_not_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("b/c")).expect("made");
        for name in ["z", "b/c/deep", "b/file", "a"] {
            std::fs::write(folder.path().join(name), name).expect("written");
        }
        std::os::unix::fs::symlink("/", folder.path().join("link")).expect("linked");
        let tree = walk(folder.path(), 0).expect("walked");
        let keys: Vec<_> = tree.files.iter().map(|file| file.key.as_str()).collect();
        assert_eq!(keys, ["a", "z", "b/file", "b/c/deep"]);
        assert_eq!((tree.skipped, tree.bytes), (1, 1 + 1 + 6 + 8));
        assert_eq!(walk(folder.path(), 2).expect("walked").files.len(), 2);
        assert!(walk(&folder.path().join("missing"), 0).is_err());
    }
}
