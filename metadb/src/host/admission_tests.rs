//! The door under floods: nobody waits while there is room, the rare asker goes first when there is none, and no place is ever lost.

use super::*;
use metadb_proto::settings::{Scope, Settings};
use metadb_proto::v1::SettingRecord;

const WRITE: Load = Load { writes: true, cost: 1, bytes: 100 };

fn settings(values: &[(&str, Scope, u64)]) -> Settings {
    let settings = Settings::default();
    let record = |(name, scope, value): &(&str, Scope, u64)| SettingRecord {
        name: (*name).to_owned(),
        scope: Some(scope.to_proto()),
        value: value.to_string(),
        ..SettingRecord::default()
    };
    settings.replace(1, &values.iter().map(record).collect::<Vec<_>>());
    assert!(settings.table().unusable().is_empty(), "{:?}", settings.table().unusable());
    settings
}

fn door(values: &[(&str, Scope, u64)]) -> Admission {
    Admission::new(Host::new(settings(values)), 3)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn in_flight(door: &Admission) -> u64 {
    door.status().1.in_flight
}

#[tokio::test]
async fn below_the_limit_nobody_waits_and_places_come_back() {
    let door = door(&[]);
    let mut permits = Vec::new();
    for tenant in 0..256 {
        permits.push(door.enter(tenant, WRITE, soon()).await.expect("room"));
    }
    let read = Load { writes: false, ..WRITE };
    drop(door.enter(1, read, soon()).await.expect("reads do not wait for writes"));
    let status = door.status().1;
    assert_eq!((status.in_flight, status.limit, status.waited_total), (256, 256, 0));
    let refused = door.enter(9, WRITE, Instant::now() + Duration::from_millis(50)).await.err().expect("no place comes free");
    assert!(
        matches!(&refused, Error::Exhausted { message, .. } if message.contains("tenant 9") && message.contains("deadline")),
        "{refused}"
    );
    assert_eq!(door.status().1.waiting_requests, 0, "it left its line");
    drop(permits);
    assert_eq!((in_flight(&door), door.host.waiting_bytes.load(Ordering::Relaxed)), (0, 0));
}

/// Clients of each tenant that ask again as soon as they are answered, until so many requests were served in all; how many of each.
async fn served(door: &Arc<Admission>, clients: &[(u64, usize)], total: u64) -> BTreeMap<u64, u64> {
    let counts: Arc<Mutex<BTreeMap<u64, u64>>> = Arc::default();
    let mut tasks = Vec::new();
    for (tenant_id, count) in clients {
        for _ in 0..*count {
            let (door, counts, tenant_id) = (Arc::clone(door), Arc::clone(&counts), *tenant_id);
            tasks.push(tokio::spawn(async move {
                while counts.lock().values().sum::<u64>() < total {
                    let permit = door.enter(tenant_id, WRITE, soon()).await.expect("the line has room for all");
                    tokio::task::yield_now().await;
                    drop(permit);
                    let mut counts = counts.lock();
                    if counts.values().sum::<u64>() < total {
                        *counts.entry(tenant_id).or_default() += 1;
                    }
                }
            }));
        }
    }
    futures::future::join_all(tasks).await.into_iter().for_each(|ended| ended.expect("no panic"));
    let counts = counts.lock();
    counts.clone()
}

#[tokio::test]
async fn together_tenants_share_by_weight_and_a_rare_one_is_not_crowded_out() {
    let door = Arc::new(door(&[("host.writes_in_flight", Scope::Cluster, 8), ("tenant.weight", Scope::Tenant(2), 300)]));
    let together = served(&door, &[(1, 100), (2, 100)], 4000).await;
    let share = together[&2] as f64 / together[&1] as f64;
    assert!((2.6..3.4).contains(&share), "{together:?}");
    // One client against 500: 8 are worked on at a time, so of 2,000 its turn comes in nearly every round that it asks for one.
    let rare = served(&door, &[(1, 500), (3, 1)], 2000).await;
    assert!(rare[&3] > 60, "{rare:?}");
    let status = door.status().1;
    assert_eq!((status.in_flight, status.waiting_requests, status.waiting_bytes), (0, 0, 0));
    assert_eq!(door.host.waiting_bytes.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_flood_is_bounded_told_when_to_come_again_and_shown() {
    let door = Arc::new(door(&[("host.writes_in_flight", Scope::Cluster, 4), ("tenant.queue_requests", Scope::Cluster, 50)]));
    let asked = (0..200).map(|_| async {
        let entered = door.enter(1, WRITE, soon()).await;
        if entered.is_ok() {
            tokio::task::yield_now().await;
        }
        entered.map(drop)
    });
    let told = futures::future::join_all(asked).await;
    let refused: Vec<_> = told.iter().filter_map(|told| told.as_ref().err()).collect();
    assert_eq!(refused.len(), 200 - 54);
    assert!(refused.iter().all(|e| matches!(e, Error::Exhausted { retry_after, .. } if *retry_after >= RETRY.0)), "{refused:?}");
    let status = door.status().1;
    assert_eq!((status.waited_total, status.refused_total, status.in_flight), (50, 146, 0));
    assert_eq!(status.tenants.iter().map(|t| (t.tenant_id, t.waited_total, t.refused_total)).collect::<Vec<_>>(), [(1, 50, 146)]);
}

#[tokio::test]
async fn who_gives_up_at_any_moment_leaves_nothing_behind() {
    let door = Arc::new(door(&[("host.writes_in_flight", Scope::Cluster, 3)]));
    let mut tasks = Vec::new();
    for n in 0..2000_u64 {
        let door = Arc::clone(&door);
        let work = async move {
            let permit = door.enter(n % 5, WRITE, soon()).await;
            tokio::time::sleep(Duration::from_micros(n % 700)).await;
            drop(permit);
        };
        let patience = Duration::from_micros(metadb_proto::seam::random_u64() % 200_000);
        tasks.push(tokio::spawn(async move { tokio::time::timeout(patience, work).await }));
    }
    futures::future::join_all(tasks).await.into_iter().for_each(|ended| drop(ended.expect("no panic")));
    let status = door.status().1;
    assert_eq!((status.in_flight, status.waiting_requests, status.waiting_bytes), (0, 0, 0));
}

#[test]
fn the_way_past_an_open_door_costs_next_to_nothing() {
    let door = door(&[]);
    // No figure is asserted on a busy machine; what is asserted is that it is ready at once: no lock, no task, no timer.
    for _ in 0..10_000 {
        let entered = futures::FutureExt::now_or_never(door.enter(5, WRITE, soon()));
        drop(entered.expect("ready at the first poll").expect("room"));
    }
    assert_eq!(door.status().1.waited_total, 0);
}
