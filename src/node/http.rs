//! The door for machines that watch: numbers, and three questions with a yes or a no.
//!
//! * `/metrics`: everything counted, as Prometheus reads it.
//! * `/livez`: 200 while the process answers at all. A restart would not help a node that fails another probe.
//! * `/readyz`: 200 when the node is in its cluster, its doors are open, and none of its replicas failed or misses a leader.
//! * `/safe-to-stop`: 200 when every group keeps a majority of up-to-date voters without this node.
//!
//! A no is 503, with the reasons as JSON. Nothing here tells a secret, a tenant or a key, so nobody has to prove who he is; who may not
//! know how busy a node is, must not reach the port.

use super::Wired;
use crate::telemetry::{Telemetry, text};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metadb::node::Node;
use metadb_proto::v1::{GroupStatus, Role};
use object_gateway::content::ContentStore;
use serde::Serialize;
use shard_router::operator::Operator;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long an answer to "safe to stop?" is given again: it costs a question to every node.
const SAFETY_FRESH: Duration = Duration::from_secs(1);

/// What the door tells of.
pub(super) struct Watched {
    telemetry: Telemetry,
    node: Arc<Node>,
    router: shard_router::Router,
    content: ContentStore,
    operator: Operator,
    /// Set when the other doors are open.
    pub(super) ready: AtomicBool,
    safety: Mutex<Option<(Instant, Verdict)>>,
}

/// A yes, or a no with its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Verdict {
    ok: bool,
    reasons: Vec<String>,
}

impl From<Vec<String>> for Verdict {
    fn from(reasons: Vec<String>) -> Self {
        Verdict { ok: reasons.is_empty(), reasons }
    }
}

impl IntoResponse for Verdict {
    fn into_response(self) -> Response {
        let status = if self.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Json(self)).into_response()
    }
}

impl Watched {
    pub(super) fn new(telemetry: Telemetry, wired: &Wired) -> Arc<Self> {
        Arc::new(Watched {
            telemetry,
            node: Arc::clone(&wired.node),
            router: wired.router.clone(),
            content: wired.content.clone(),
            operator: Operator::new(wired.router.clone()),
            ready: AtomicBool::new(false),
            safety: Mutex::default(),
        })
    }

    fn readiness(&self) -> Verdict {
        let replicas = self.node.groups().into_iter().map(|group| group.status());
        let mut reasons: Vec<String> = replicas.filter_map(|status| unready(&status)).collect();
        if !self.ready.load(Ordering::Relaxed) {
            reasons.insert(0, "the node is not in its cluster yet, or it stops".to_owned());
        }
        reasons.into()
    }

    /// Asked of the cluster once a second at most, however many ask here.
    async fn safety(&self) -> Verdict {
        let mut known = self.safety.lock().await;
        if let Some((at, verdict)) = known.as_ref().filter(|(at, _)| at.elapsed() < SAFETY_FRESH) {
            tracing::trace!(age = ?at.elapsed(), "told again whether it is safe to stop");
            return verdict.clone();
        }
        let verdict: Verdict = match self.operator.obstacles_to_stop(self.node.node_id()).await {
            Ok(obstacles) => obstacles.into_iter().map(|o| format!("group {}: {}", o.group_id, o.reason)).collect::<Vec<_>>().into(),
            Err(error) => vec![format!("the directory does not answer: {error}")].into(),
        };
        *known = Some((Instant::now(), verdict.clone()));
        verdict
    }
}

fn unready(status: &GroupStatus) -> Option<String> {
    let group = status.group_id;
    if !status.problem.is_empty() || status.role() == Role::Failed {
        return Some(format!("group {group}: the replica failed: {}", status.problem));
    }
    status.leader.is_none().then(|| format!("group {group}: no leader is known"))
}

/// Serves until it is told to close.
pub(super) async fn serve(listener: TcpListener, watched: Arc<Watched>, closing: CancellationToken) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { Verdict::from(Vec::new()) }))
        .route("/readyz", get(|State(watched): State<Arc<Watched>>| async move { watched.readiness() }))
        .route("/safe-to-stop", get(|State(watched): State<Arc<Watched>>| async move { watched.safety().await }))
        .with_state(watched);
    axum::serve(listener, routes).with_graceful_shutdown(closing.cancelled_owned()).await
}

async fn metrics(State(watched): State<Arc<Watched>>) -> Response {
    let text = watched.telemetry.scrape(watched.node.node_id(), |samples| {
        watched.node.observe(samples);
        watched.router.counters().observe(samples);
        watched.content.observe(samples);
    });
    ([(header::CONTENT_TYPE, text::CONTENT_TYPE)], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use metadb_proto::v1::NodeRef;

    #[test]
    fn a_replica_is_unready_when_it_failed_or_knows_no_leader() {
        let healthy = GroupStatus { group_id: 3, role: Role::Follower.into(), leader: Some(NodeRef::default()), ..Default::default() };
        assert_eq!(unready(&healthy), None);
        let failed = GroupStatus { problem: "a bad disk".into(), ..healthy.clone() };
        assert!(unready(&failed).is_some_and(|reason| reason.contains("group 3") && reason.contains("a bad disk")));
        let alone = GroupStatus { leader: None, ..healthy };
        assert!(unready(&alone).is_some_and(|reason| reason.contains("no leader")));
    }
}
