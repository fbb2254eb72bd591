//! What is known of every replica from the events so far.

use std::collections::{BTreeMap, BTreeSet};

/// An entry of a log, as far as invariants care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub index: u64,
    /// The term of its leader.
    pub term: u64,
    /// Stands for what it says.
    pub digest: u32,
    /// The sets of voters, each of which must agree, if it changes them.
    pub voters: Option<Vec<BTreeSet<u64>>>,
}

/// How far a replica says to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Positions {
    /// The log is gone up to here.
    pub purged: u64,
    /// What was applied is durable up to here.
    pub flushed: u64,
    /// Applied.
    pub applied: u64,
    /// Known to be committed.
    pub committed: u64,
    /// The end of the log.
    pub last: u64,
}

/// What a replica did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It was made where there was none, or where one was wiped after its group went without it.
    Made,
    /// It opened with this vote (term, candidate, whether that one leads), and this log behind what was purged.
    Opened {
        /// The vote.
        vote: Option<(u64, u64, bool)>,
        /// The log is gone up to here.
        purged: u64,
        /// The rest of it.
        log: Vec<Entry>,
        /// Applied up to here.
        applied: u64,
    },
    /// A vote is durable.
    Voted {
        /// In which term.
        term: u64,
        /// For whom.
        candidate: u64,
        /// Whether that one leads.
        leads: bool,
    },
    /// Entries can be read. Appends are numbered in each life.
    Appended {
        /// Its number.
        append: u64,
        /// The entries.
        entries: Vec<Entry>,
    },
    /// An append, and all before it, is durable.
    Durable {
        /// Its number.
        append: u64,
    },
    /// The log ends before this index now.
    Truncated {
        /// The first that is gone.
        from: u64,
    },
    /// The log begins behind this index now.
    Purged {
        /// The last that is gone.
        through: u64,
    },
    /// What was applied is durable.
    Flushed {
        /// Up to here.
        through: u64,
    },
    /// Entries were applied.
    Applied {
        /// Which.
        entries: Vec<Entry>,
    },
    /// Somebody asks for the index that a read must see.
    Asked {
        /// Number of the question, in the whole history.
        read: u64,
    },
    /// The answer.
    ReadAt {
        /// Number of the question.
        read: u64,
        /// The index.
        index: u64,
    },
    /// A read goes on to be answered.
    Served {
        /// The index that it must see.
        index: u64,
        /// Up to where the state that answers was applied.
        applied: u64,
    },
    /// A snapshot took the place of the state.
    Installed {
        /// Up to here.
        through: u64,
    },
    /// It says to be so far.
    Stands(Positions),
}

/// What a replica did, and which it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its node.
    pub node_id: u64,
    /// Its group.
    pub group_id: u32,
    /// What it did.
    pub what: What,
}

/// A replica.
#[derive(Debug, Clone, Default)]
pub struct Replica {
    /// Term, candidate, and whether that one leads: the highest vote that was durable.
    pub vote: Option<(u64, u64, bool)>,
    /// The log, with the number of the append that wrote each entry; 0: found when it opened.
    pub log: BTreeMap<u64, (Entry, u64)>,
    /// Appends up to this one are durable.
    pub durable: u64,
    /// The log is gone up to here.
    pub purged: u64,
    /// What was applied is durable up to here.
    pub flushed: u64,
    /// Applied.
    pub applied: u64,
    /// Where it said to stand, in this life.
    pub stands: Option<Positions>,
}

impl Replica {
    /// Whether it holds this entry durably, or a state that covers it.
    #[must_use]
    pub fn holds(&self, entry: &Entry) -> bool {
        let found = self.log.get(&entry.index);
        found.is_some_and(|(own, append)| own == entry && *append <= self.durable) || self.covers(entry.index)
    }

    /// Whether the entry is part of a durable state, so that the log need not have it.
    #[must_use]
    pub fn covers(&self, index: u64) -> bool {
        index <= self.purged.max(self.flushed)
    }

    /// The voters by its state are those of the last change that it covers, which this log may never have had.
    fn learn_voters(&mut self, group_id: u32, applied: &BTreeMap<(u32, u64), (Entry, u64)>) {
        let covered = applied.range((group_id, 0)..=(group_id, self.applied)).rev();
        if let Some((entry, _)) = covered.map(|(_, applied)| applied).find(|(entry, _)| entry.voters.is_some()) {
            self.log.entry(entry.index).or_insert_with(|| (entry.clone(), 0));
        }
    }

    /// The sets of voters in force at an index of its log, and at its end.
    #[must_use]
    pub fn voters(&self, index: u64) -> [Option<&Vec<BTreeSet<u64>>>; 2] {
        let newest = |upto: u64| self.log.range(..=upto).rev().find_map(|(_, (entry, _))| entry.voters.as_ref());
        [newest(index), newest(u64::MAX)]
    }
}

/// All replicas.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// By group and node.
    pub replicas: BTreeMap<(u32, u64), Replica>,
    /// Who led a term of a group.
    pub leaders: BTreeMap<(u32, u64), u64>,
    /// What was applied first at an index of a group, and by whom.
    pub applied: BTreeMap<(u32, u64), (Entry, u64)>,
    /// Up to where leaders have applied, and so may have answered, by group.
    pub answered: BTreeMap<u32, u64>,
    /// Up to where leaders had applied when a read was asked for, by its number.
    pub asked: BTreeMap<u64, u64>,
}

impl Model {
    /// The replica of an event, as it was before.
    #[must_use]
    pub fn replica(&self, event: &Event) -> Option<&Replica> {
        self.replicas.get(&(event.group_id, event.node_id))
    }

    /// The replicas of a group, by node.
    pub fn group(&self, group_id: u32) -> impl Iterator<Item = (u64, &Replica)> {
        self.replicas.range((group_id, 0)..=(group_id, u64::MAX)).map(|((_, node), replica)| (*node, replica))
    }

    /// Goes one event on.
    pub(super) fn step(&mut self, event: &Event) {
        let replica = self.replicas.entry((event.group_id, event.node_id)).or_default();
        match &event.what {
            What::Made => *replica = Replica::default(),
            What::Opened { vote, purged, log, applied } => {
                let log = log.iter().map(|entry| (entry.index, (entry.clone(), 0))).collect();
                *replica = Replica { vote: *vote, log, durable: 0, purged: *purged, flushed: *applied, applied: *applied, stands: None };
                // The purge that follows a snapshot may be lost in a crash: then the log is older than the state.
                replica.learn_voters(event.group_id, &self.applied);
            }
            What::Voted { term, candidate, leads } => {
                replica.vote = Some((*term, *candidate, *leads));
                if *leads && *candidate == event.node_id {
                    self.leaders.entry((event.group_id, *term)).or_insert(event.node_id);
                }
            }
            What::Appended { append, entries } => {
                replica.log.extend(entries.iter().map(|entry| (entry.index, (entry.clone(), *append))));
            }
            What::Durable { append } => replica.durable = *append,
            What::Truncated { from } => drop(replica.log.split_off(from)),
            What::Purged { through } => {
                // The last change of voters is kept: it stays in force.
                let last = replica.log.range(..=through).rev().find(|(_, (entry, _))| entry.voters.is_some()).map(|(index, _)| *index);
                replica.log.retain(|index, _| index > through || Some(*index) == last);
                replica.purged = *through;
            }
            What::Flushed { through } => replica.flushed = *through.max(&replica.flushed),
            What::Applied { entries } => {
                let leads = replica.vote.is_some_and(|(_, candidate, leads)| leads && candidate == event.node_id);
                if let Some(last) = entries.last().filter(|_| leads) {
                    let answered = self.answered.entry(event.group_id).or_default();
                    *answered = last.index.max(*answered);
                }
                for entry in entries {
                    replica.applied = entry.index;
                    self.applied.entry((event.group_id, entry.index)).or_insert_with(|| (entry.clone(), event.node_id));
                }
            }
            What::Installed { through } => {
                replica.applied = *through;
                replica.flushed = *through.max(&replica.flushed);
                replica.learn_voters(event.group_id, &self.applied);
            }
            What::Asked { read } => {
                self.asked.insert(*read, self.answered.get(&event.group_id).copied().unwrap_or(0));
            }
            What::ReadAt { read, .. } => drop(self.asked.remove(read)),
            What::Served { .. } => {}
            What::Stands(positions) => replica.stands = Some(*positions),
        }
    }
}

#[cfg(test)]
#[test]
fn a_snapshot_brings_the_voters_that_it_covers() {
    let entry = |index, voters: &[u64]| Entry { index, term: 1, digest: 0, voters: Some(vec![voters.iter().copied().collect()]) };
    let (two, three) = (entry(1, &[1, 2]), entry(5, &[1, 2, 3]));
    let mut model = Model::default();
    let mut step = |node_id, what| model.step(&Event { node_id, group_id: 7, what });
    step(1, What::Applied { entries: vec![two.clone(), three.clone()] });
    step(3, What::Appended { append: 1, entries: vec![two] });
    step(3, What::Installed { through: 9 });
    step(3, What::Purged { through: 9 });
    let (_, replica) = model.group(7).find(|(node, _)| *node == 3).expect("it is known");
    assert_eq!(replica.voters(9)[0], three.voters.as_ref());
}
