//! `cairn dev`: nodes as child processes on loopback, kept alive, with generated keys and a ready bucket.
//!
//! The same thing, without its table, carries `cairn demo` and the end-to-end tests.

mod folder;
mod ports;
mod welcome;

use crate::cli::{Context, Key};
use crate::config::ClusterConfig;
use crate::failure::{Code, Failure};
use crate::node::Stop;
use crate::output::{self, Output};
use crate::s3_client::S3Client;
use folder::DevFolder;
use jepsen::Cluster;
use metadb_proto::v1::{GroupStatus, KeyRecord, Role, StatusResponse, key_record, tenant_record};
use shard_router::operator::Operator;
use shard_router::{Router, RouterConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// The tenant and the bucket that are ready at the end of the first start.
pub(crate) const DEMO: &str = "demo";
/// How long a start may take before the person is told what is missing. A healthy one takes under 3 seconds.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How often is looked whether it is ready.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often a running cluster's nodes are looked at, to tell of deaths.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// How long the nodes get to stop: their own grace, and a little.
const STOP_WITHIN: Duration = Duration::from_secs(8);
/// How many lines of a log are shown when a node does not start.
const LOG_LINES: usize = 5;

/// What the person asked for.
#[derive(Debug, Clone)]
pub(crate) struct DevOptions {
    pub(crate) data: PathBuf,
    pub(crate) nodes: Option<u16>,
    pub(crate) port_base: Option<u16>,
}

/// A running cluster of child processes.
pub(crate) struct DevCluster {
    pub(crate) folder: DevFolder,
    pub(crate) cluster: Cluster,
    pub(crate) context: Context,
    pub(crate) took: Duration,
}

/// Runs a cluster until it is told to stop.
pub(crate) async fn run(options: DevOptions, output: Output, mut stop: Stop) -> Result<(), Failure> {
    let running = tokio::select! {
        biased;
        () = stop.wait() => return Ok(()),
        running = DevCluster::up(&options) => running?,
    };
    welcome::show(&running, output)?;
    let mut told = BTreeMap::new();
    loop {
        tokio::select! {
            biased;
            () = stop.wait() => break,
            () = tokio::time::sleep(WATCH_EVERY) => running.tell_deaths(&mut told),
        }
    }
    output::note("stopping …");
    running.down().await;
    output::note("stopped");
    Ok(())
}

impl DevCluster {
    /// Starts the nodes and waits until everything is ready to be used.
    pub(crate) async fn up(options: &DevOptions) -> Result<Self, Failure> {
        let started = Instant::now();
        let folder = DevFolder::open(&options.data, options.nodes, options.port_base)?;
        let cluster = Cluster::new(folder.specs()?, folder.secret.node_token(0));
        let nodes = if cluster.size() == 1 { "node" } else { "nodes" };
        output::note(&format!("starting {} {nodes}, data in {} …", cluster.size(), folder.path().display()));
        if folder.is_new && folder.moved_ports() && options.port_base.is_none() {
            output::note(&format!(
                "ports from {} were in use: the nodes listen at {}",
                ports::DEFAULT_BASE + 1,
                folder.endpoints().join(", ")
            ));
        }
        cluster.start_all().await.map_err(|error| Failure::failed(error.to_string()))?;
        let up = async {
            wait_until_ready(&folder, &cluster, started).await?;
            prepare(&folder, started).await
        };
        match Box::pin(up).await {
            Ok(context) => Ok(DevCluster { folder, cluster, context, took: started.elapsed() }),
            Err(failure) => {
                cluster.stop_all(STOP_WITHIN).await;
                Err(failure)
            }
        }
    }

    /// Stops all nodes in an orderly way.
    pub(crate) async fn down(&self) {
        self.cluster.stop_all(STOP_WITHIN).await;
    }

    /// An S3 client of all nodes, as the tenant `demo`.
    pub(crate) fn s3(&self) -> Result<S3Client, Failure> {
        demo_s3(&self.context)
    }

    /// A router with the rights of the cluster itself.
    pub(crate) fn router(&self) -> Router {
        router(&self.folder)
    }

    fn tell_deaths(&self, told: &mut BTreeMap<usize, u64>) {
        for node in 0..self.cluster.size() {
            let state = self.cluster.state(node);
            let before = told.entry(node).or_insert(0);
            if state.gave_up && *before != u64::MAX {
                *before = u64::MAX;
                output::note(&format!("{} refuses to start; it is not tried again. {}", state.name, log_hint(&self.folder, node)));
            } else if state.restarts > *before && *before != u64::MAX {
                *before = state.restarts;
                let exit = state.last_exit.unwrap_or_default();
                output::note(&format!("{} died ({exit}) and was started again. {}", state.name, log_hint(&self.folder, node)));
            }
        }
    }
}

fn router(folder: &DevFolder) -> Router {
    Router::new(RouterConfig { seeds: folder.endpoints(), token: folder.secret.node_token(0), ..RouterConfig::default() })
}

fn demo_s3(context: &Context) -> Result<S3Client, Failure> {
    let key = context.tenants.get(DEMO).ok_or_else(|| Failure::failed("the credentials file has no key of the tenant demo"))?;
    S3Client::new(&context.s3_endpoints, &context.region, key)
}

async fn wait_until_ready(folder: &DevFolder, cluster: &Cluster, started: Instant) -> Result<(), Failure> {
    loop {
        for node in 0..cluster.size() {
            let state = cluster.state(node);
            if state.gave_up || state.restarts > 2 {
                return Err(did_not_start(folder, node, state.last_exit.as_deref().unwrap_or("it died")));
            }
        }
        let statuses = cluster.statuses().await;
        let silent = (0..cluster.size()).find(|node| statuses.iter().all(|(answered, _)| answered != node));
        let missing = match silent {
            Some(node) => Some(format!("{} does not answer", cluster.state(node).name)),
            None => first_unready(&statuses, &folder.shape()?),
        };
        let Some(missing) = missing else { return Ok(()) };
        if started.elapsed() > READY_WITHIN {
            let message = format!("the cluster did not come up within {} s: {missing}", READY_WITHIN.as_secs());
            return Err(Failure::new(Code::Unavailable, message).hint(log_hint(folder, 0)));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Every node is in the cluster, all groups are there with all their voters, and each has a leader that says so itself.
fn first_unready(statuses: &[(usize, StatusResponse)], shape: &ClusterConfig) -> Option<String> {
    if let Some((_, status)) = statuses.iter().find(|(_, status)| status.cluster_id.is_empty()) {
        let address = status.node.as_ref().map_or("a node", |node| node.address.as_str());
        return Some(format!("{address} has not joined"));
    }
    let groups = || statuses.iter().flat_map(|(_, status)| &status.groups);
    let replicas = shape.replicas as usize;
    let whole = |group: &&GroupStatus| group.role() == Role::Leader && group.voters.len() >= replicas;
    let led: BTreeSet<u32> = groups().filter(whole).map(|group| group.group_id).collect();
    (0..=shape.initial_groups)
        .chain(groups().map(|group| group.group_id))
        .find(|group| !led.contains(group))
        .map(|group| format!("group {group} is not there with {replicas} voters and a leader"))
}

/// The first start makes keys, a tenant and a bucket; a later one finds them.
async fn prepare(folder: &DevFolder, started: Instant) -> Result<Context, Failure> {
    let file = folder.credentials();
    let context = match Context::read(&file)? {
        Some(context) => context,
        None => {
            let context = make_credentials(folder, started).await?;
            context.write(&file)?;
            context
        }
    };
    let mut s3 = demo_s3(&context)?;
    s3.patience = READY_WITHIN.saturating_sub(started.elapsed());
    s3.create_bucket(DEMO).await.map_err(|error| Failure::from(error).during("making the bucket demo"))?;
    Ok(context)
}

async fn make_credentials(folder: &DevFolder, started: Instant) -> Result<Context, Failure> {
    let operator = Operator::new(router(folder));
    let tenant_id = loop {
        match demo_tenant(&operator).await {
            Ok(Some(tenant_id)) => break tenant_id,
            Err(error) if started.elapsed() > READY_WITHIN => return Err(Failure::from(error).during("making the tenant demo")),
            Ok(None) if started.elapsed() > READY_WITHIN => {
                return Err(Failure::new(Code::Unavailable, "the tenant demo is not ready in time").hint(log_hint(folder, 0)));
            }
            Ok(None) | Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    };
    let made_by = "made by cairn dev";
    let operators = operator.create_key(key_record::Role::Operator, 0, made_by).await?;
    let tenants = operator.create_key(key_record::Role::Tenant, tenant_id, made_by).await?;
    let key = |record: KeyRecord| Key { access_key_id: record.access_key_id, secret_access_key: record.secret };
    Ok(Context {
        endpoints: folder.endpoints(),
        s3_endpoints: folder.s3_endpoints(),
        region: crate::config::NodeConfig::default().s3.region,
        tenant: DEMO.to_owned(),
        operator: key(operators),
        tenants: [(DEMO.to_owned(), key(tenants))].into(),
    })
}

/// The id of the tenant, made if it is not there; none while its shard is still being placed.
async fn demo_tenant(operator: &Operator) -> Result<Option<u64>, metadb_proto::Error> {
    let known = operator.tenants().await?.into_iter().find(|tenant| tenant.name == DEMO);
    let tenant = match known {
        Some(tenant) => tenant,
        None => operator.create_tenant(DEMO).await?,
    };
    Ok((tenant.state() == tenant_record::State::Active).then_some(tenant.tenant_id))
}

fn log_hint(folder: &DevFolder, node: usize) -> String {
    format!("its log: {}", folder.log(node).display())
}

fn did_not_start(folder: &DevFolder, node: usize, exit: &str) -> Failure {
    let text = std::fs::read_to_string(folder.log(node)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n  ");
    Failure::failed(format!("node-{} does not start ({exit}):\n  {tail}", node + 1)).hint(log_hint(folder, node))
}
