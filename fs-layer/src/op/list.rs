//! Lists a folder. Changes nothing. What to read and what to show is decided by [`crate::listing`].

use super::entry_of;
use crate::limits::{DELIMITER_BYTES, FLAT_KEY_BYTES, LIST_DEFAULT, LIST_PAGE};
use crate::listing::{Item, Plan};
use crate::model::{FolderKind, ListOptions, Listing};
use crate::name::canonical_text;
use crate::{Namespace, keys};
use metadb_proto::Error;

impl Namespace {
    /// A page of a folder's entries: by bytes in flat folders, by canonical name in tree folders (whose common prefixes are canonical too).
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such folder, [`Error::Invalid`] for bad options; and those of the database.
    pub async fn list(&self, folder: u64, options: ListOptions) -> Result<Listing, Error> {
        let context = self.reading();
        let mut plan = plan(context.folder(folder).await?, &options)?;
        let mut listing = Listing::default();
        let mut seen = false;
        while let Some(query) = plan.query() {
            let end = query.before.map_or_else(|| keys::entries(folder).1, |before| keys::entries_from(folder, &before));
            let page = context.db.scan(keys::entries_from(folder, &query.from), end, query.limit).await?;
            seen |= !page.rows.is_empty();
            let names = page.rows.iter().map(|row| keys::entry_name(&row.key)).collect::<Result<Vec<_>, _>>()?;
            for item in plan.feed(&names, !page.more) {
                match item {
                    Item::Name(index) => listing.entries.extend(page.rows.get(index).map(|row| entry_of(folder, row)).transpose()?),
                    Item::Prefix(prefix) => listing.common_prefixes.push(prefix),
                }
            }
        }
        if !seen {
            // An empty folder and one that is gone look the same, and what is remembered of the kind does not tell.
            context.must_exist(folder).await?;
        }
        listing.continuation = plan.continuation();
        Ok(listing)
    }
}

fn plan(kind: FolderKind, options: &ListOptions) -> Result<Plan, Error> {
    for (field, text, limit) in [
        ("prefix", &options.prefix, FLAT_KEY_BYTES),
        ("delimiter", &options.delimiter, DELIMITER_BYTES),
        ("start_after", &options.start_after, FLAT_KEY_BYTES),
    ] {
        if text.len() > limit {
            return Err(Error::invalid(field, format!("at most {limit} bytes"), format!("{} bytes", text.len())));
        }
        if text.contains('\0') {
            return Err(Error::invalid(field, "without NUL", "a text with NUL"));
        }
    }
    let limit = match options.limit {
        0 => LIST_DEFAULT,
        limit => limit.min(LIST_PAGE - 1),
    };
    let [prefix, delimiter, start_after] =
        [&options.prefix, &options.delimiter, &options.start_after].map(|text| canonical_text(kind, text));
    let mut plan = Plan::new(prefix, delimiter, &start_after, limit);
    if let Some(continuation) = &options.continuation {
        plan.resume(continuation)?;
    }
    Ok(plan)
}
