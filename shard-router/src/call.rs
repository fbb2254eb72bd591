//! The driver of one request: place it, ask, and do what the policy decides until there is an answer or no time left.

use crate::ask::{Ask, stamp};
use crate::metrics;
use crate::policy::{self, Attempt, Decision, Failure};
use crate::router::Router;
use crate::routes::{Place, TenantRoutes};
use metadb_proto::kv::{request, response};
use metadb_proto::v1::NodeRef;
use metadb_proto::{Error, kv, seam, v1};
use metadb_telemetry::trace::{self, Context, Span};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What is remembered between the attempts of one request.
#[derive(Default)]
struct Course {
    /// The trace that it belongs to, if it is sampled.
    trace: Option<Context>,
    attempts: u32,
    redirects: u32,
    /// Whether an attempt may have been executed.
    open: bool,
    effects: bool,
    repeatable: bool,
    /// Where an answer sent us.
    redirect: Option<v1::Redirect>,
    /// The node to ask again.
    stay: Option<Arc<NodeRef>>,
    /// The node not to ask again at once.
    avoid: Option<Arc<NodeRef>>,
    /// The node that could not be reached last; 0: none.
    lost_node: u64,
}

/// One attempt: where it goes.
struct Target {
    node: Arc<NodeRef>,
    place: Place,
    /// Which load of the routes it came from.
    generation: u64,
}

impl Router {
    /// Asks until answered. Also says of which place the answer is.
    pub(crate) async fn call(&self, tenant_id: u64, ask: &dyn Ask, until: Instant) -> Result<(response::Body, Place), Error> {
        self.counting().requests.one();
        self.budget().earn();
        let (started, verb) = (Instant::now(), ask.verb());
        let mut span = trace::root("router");
        if let Some(span) = &mut span {
            span.note("verb", metrics::VERBS[verb]);
            span.note("tenant", tenant_id);
        }
        let course = Course { trace: span.as_ref().map(Span::context), ..Course::default() };
        let result = self.ask_until_answered(tenant_id, ask, course, until).await;
        if let (Some(span), Err(error)) = (&mut span, &result) {
            span.fail(error);
        }
        metrics::answered(verb, started.elapsed(), &result);
        result
    }

    async fn ask_until_answered(
        &self,
        tenant_id: u64,
        ask: &dyn Ask,
        mut course: Course,
        until: Instant,
    ) -> Result<(response::Body, Place), Error> {
        loop {
            course.attempts += 1;
            let (failure, target) = match self.target(tenant_id, ask, &course, until).await {
                Err(error) => (Failure::NotSent(error), None),
                Ok(target) => match self.attempt(tenant_id, ask, &target, &mut course, until).await {
                    Ok(body) => return Ok((body, target.place)),
                    Err(failure) => (failure, Some(target)),
                },
            };
            self.recover(tenant_id, failure, target, &mut course, until).await?;
        }
    }

    async fn attempt(
        &self,
        tenant_id: u64,
        ask: &dyn Ask,
        target: &Target,
        course: &mut Course,
        until: Instant,
    ) -> Result<response::Body, Failure> {
        let now = Instant::now();
        let time_left = until.saturating_duration_since(now);
        let mut body = ask.body(&target.place);
        stamp(&mut body, tenant_id, &target.place, time_left);
        if let Some(trace) = course.trace {
            kv::header_mut(&mut body).traceparent = trace.traceparent();
        }
        if course.lost_node != target.node.node_id {
            kv::header_mut(&mut body).lost_node = course.lost_node;
        }
        course.effects = kv::has_effects(&body);
        course.repeatable = !course.effects || !kv::header_mut(&mut body).request_id.is_empty();
        // What can't be repeated gets all the time there is.
        let patience = if course.repeatable { self.config().attempt_timeout.min(time_left) } else { time_left };
        let answer = self.nodes().call(&target.node, body, now + patience).await?;
        if course.redirect.is_some() {
            self.learn_redirect(tenant_id, target);
        }
        Ok(answer)
    }

    /// Applies the policy: waits and notes where to go next, or gives up.
    async fn recover(
        &self,
        tenant_id: u64,
        failure: Failure,
        target: Option<Target>,
        course: &mut Course,
        until: Instant,
    ) -> Result<(), Error> {
        let may_repeat = !matches!(failure, Failure::Answered(Error::Exhausted { .. })) || self.budget().spend();
        if !may_repeat {
            self.counting().repetitions_denied.one();
        }
        let attempt = Attempt {
            failure: &failure,
            attempts: course.attempts,
            redirects: course.redirects,
            time_left: until.saturating_duration_since(Instant::now()),
            effects: course.effects,
            repeatable: course.repeatable || !course.effects,
            open: course.open,
            group_id: target.as_ref().and_then(|target| target.place.group_id),
            may_repeat,
            random: seam::random_u64(),
        };
        let verdict = match (&failure, &target) {
            // Routing itself ended: what it says of the tenant is final, what it says of the moment is not.
            (Failure::NotSent(error), None) if !is_passing(error) => {
                policy::Verdict { decision: Decision::GiveUp { error: policy::surrender(error, course.open) }, open: course.open }
            }
            _ => policy::decide(&attempt),
        };
        tracing::trace!(tenant_id, attempts = course.attempts, error = %failure.error(), decision = ?verdict.decision, "attempt failed");
        course.open = verdict.open;
        course.redirect = None;
        course.stay = None;
        if let (Failure::NotSent(_) | Failure::Lost(_), Some(target)) = (&failure, &target) {
            course.lost_node = target.node.node_id;
        }
        self.doubt(tenant_id, &failure, target.as_ref());
        let follows = matches!(verdict.decision, Decision::GoTo { .. } | Decision::Follow { .. });
        let after = match verdict.decision {
            Decision::GiveUp { error } => {
                if matches!(error, Error::UnknownOutcome { .. }) {
                    self.counting().unknown_outcomes.one();
                }
                return Err(error);
            }
            Decision::RetryHere { after } => {
                course.stay = target.map(|target| target.node);
                after
            }
            Decision::GoTo { after, redirect } => {
                course.redirect = Some(redirect);
                after
            }
            Decision::Follow { after } => {
                course.avoid = None;
                after
            }
            Decision::TryAnother { after } => {
                course.avoid = target.map(|target| target.node);
                after
            }
            Decision::Refresh { after } => {
                course.avoid = None;
                self.wait(after).await;
                let generation = target.map_or(0, |target| target.generation);
                // A failed refresh shows as the next attempt's failure.
                let _ = self.refresh(tenant_id, generation, until).await;
                Duration::ZERO
            }
        };
        self.note_redirect(course, follows);
        self.counting().retries.one();
        self.wait(after).await;
        Ok(())
    }

    fn note_redirect(&self, course: &mut Course, follows: bool) {
        course.redirects = if follows { course.redirects + 1 } else { 0 };
        if follows {
            self.counting().redirects.one();
        }
    }

    async fn wait(&self, after: Duration) {
        if !after.is_zero() {
            tokio::time::sleep(after).await;
        }
    }

    /// Unlearns what the failure shows to be wrong, learns what it tells.
    fn doubt(&self, tenant_id: u64, failure: &Failure, target: Option<&Target>) {
        let Some(target) = target else { return };
        let mut map = self.map().write();
        match failure {
            Failure::Answered(Error::Moved { redirect, .. }) => {
                if let Some(group_id) = target.place.group_id {
                    map.doubt_leader(group_id, &target.node);
                }
                if let Some(leader) = &redirect.leader {
                    map.learn_leader(redirect.group_id, Arc::new(leader.clone()));
                }
                let same_owner =
                    target.place.group_id == Some(redirect.group_id) && (redirect.epoch == 0 || redirect.epoch == target.place.epoch);
                if let (Some(keys), Some(routes)) = (&redirect.keys, map.tenant(tenant_id))
                    && target.place.group_id.is_some()
                {
                    let (start, end) = (keys.start.clone(), keys.end.clone());
                    let place = Place { start, end, group_id: Some(redirect.group_id), epoch: redirect.epoch };
                    let routes = routes.with(&place, self.next_generation());
                    map.learn_tenant(tenant_id, Arc::new(routes), seam::random_u64());
                } else if !same_owner && tenant_id != metadb_proto::directory::DIRECTORY_TENANT && target.place.group_id.is_some() {
                    map.forget_tenant(tenant_id);
                }
            }
            Failure::NotSent(_) | Failure::Lost(_) => {
                if let Some(group_id) = target.place.group_id {
                    map.doubt_leader(group_id, &target.node);
                }
            }
            Failure::Answered(_) => {}
        }
    }

    /// A redirect that was right is worth keeping.
    fn learn_redirect(&self, tenant_id: u64, target: &Target) {
        let Some(group_id) = target.place.group_id else { return };
        let mut map = self.map().write();
        map.learn_leader(group_id, Arc::clone(&target.node));
        // Where the directory may not be read, answers are all there is.
        if map.tenant(tenant_id).is_some_and(|routes| routes.only().is_some_and(|only| only.group_id.is_none())) {
            let routes = TenantRoutes::new(vec![Place::whole(Some(group_id), target.place.epoch)], target.generation);
            map.learn_tenant(tenant_id, Arc::new(routes), seam::random_u64());
        }
    }

    async fn target(&self, tenant_id: u64, ask: &dyn Ask, course: &Course, until: Instant) -> Result<Target, Error> {
        let routes = self.tenant_routes(tenant_id, until).await?;
        let mut place = match ask.place(&routes) {
            // A gap: the routes were read while they changed.
            Err(Error::Unavailable { .. }) => ask.place(&*self.refresh(tenant_id, routes.generation, until).await?)?,
            placed => placed?,
        };
        let generation = routes.generation;
        if let Some(redirect) = &course.redirect
            && let Some(leader) = &redirect.leader
        {
            if redirect.epoch != 0 || place.group_id != Some(redirect.group_id) {
                place.epoch = redirect.epoch;
            }
            place.group_id = Some(redirect.group_id);
            return Ok(Target { node: Arc::new(leader.clone()), place, generation });
        }
        if let Some(node) = &course.stay {
            return Ok(Target { node: Arc::clone(node), place, generation });
        }
        let node = self.node_for(&place, course.avoid.as_deref(), until).await?;
        Ok(Target { node, place, generation })
    }

    async fn node_for(&self, place: &Place, avoid: Option<&NodeRef>, until: Instant) -> Result<Arc<NodeRef>, Error> {
        let local = self.config().local.as_ref().map(|local| local.node_id);
        let Some(group_id) = place.group_id else { return self.any_node() };
        let picked = self.map().read().pick(group_id, avoid, local, seam::random_u64());
        match picked {
            Some(node) => Ok(node),
            None if group_id == metadb_proto::directory::DIRECTORY_GROUP => self.discover(until).await,
            None => {
                self.load_voters(group_id, until).await?;
                let picked = self.map().read().pick(group_id, avoid, local, seam::random_u64());
                picked.ok_or_else(|| Error::unavailable(format!("no node of group {group_id} is known"), Duration::from_millis(50)))
            }
        }
    }

    /// The node of this process, or a seed.
    fn any_node(&self) -> Result<Arc<NodeRef>, Error> {
        let config = self.config();
        if let Some(local) = &config.local {
            return Ok(Arc::new(NodeRef { node_id: local.node_id, address: String::new() }));
        }
        let any = usize::try_from(seam::random_u64() % (config.seeds.len().max(1) as u64)).unwrap_or(0);
        let address = config.seeds.get(any).cloned().ok_or_else(|| Error::invalid("seeds", "at least one address", "none"))?;
        Ok(Arc::new(NodeRef { node_id: 0, address }))
    }
}

/// Whether an error of routing may be gone at the next attempt.
fn is_passing(error: &Error) -> bool {
    match error {
        Error::Unavailable { .. } | Error::Exhausted { .. } | Error::UnknownOutcome { .. } | Error::Moved { .. } => true,
        Error::Conflict { .. }
        | Error::Invalid { .. }
        | Error::NotFound { .. }
        | Error::AlreadyExists { .. }
        | Error::Denied { .. }
        | Error::Unauthenticated { .. }
        | Error::Suspended { .. }
        | Error::Corrupt { .. }
        | Error::Internal { .. } => false,
    }
}

/// The one thing that was asked for, out of an answer.
macro_rules! expect_answer {
    ($body:expr, $kind:ident) => {
        match $body {
            metadb_proto::kv::response::Body::$kind(answer) => Ok(answer),
            _ => Err(metadb_proto::Error::internal("the node answered something else than was asked")),
        }
    };
}
pub(crate) use expect_answer;

/// A request without a header; the driver fills it in.
pub(crate) fn transact_body(request_id: bytes::Bytes, conditions: Vec<v1::Condition>, operations: Vec<v1::Operation>) -> request::Body {
    let header = Some(v1::RequestHeader { request_id, ..v1::RequestHeader::default() });
    request::Body::Transact(v1::TransactRequest { header, conditions, operations })
}
