//! Cairn processes with fresh data.

use super::cairn_targets::{RouterTarget, UnaryTarget};
use super::{pids, ports, start, up};
use anyhow::Context as _;
use jepsen::{Cluster, NodeSpec};
use metadb_proto::principal::ClusterSecret;
use metadb_proto::{Error, seam, v1};
use shard_router::operator::Operator;
use shard_router::{Client, Router, RouterConfig, operation};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A cluster of three is up, with all its groups and a tenant, well within this.
const UP_WITHIN: Duration = Duration::from_secs(60);
/// The tenant whose keys are measured.
pub const TENANT: &str = "bench";
/// Groups beside the directory.
pub const GROUPS: usize = 8;

/// The running processes.
pub struct Cairn {
    cluster: Cluster,
    addresses: Vec<String>,
    token: String,
    secret_file: PathBuf,
    router: Router,
    tenant_id: u64,
}

impl Cairn {
    /// Starts so many nodes, makes a tenant, and waits until it can be written.
    ///
    /// # Errors
    /// If they can't be started or don't answer in time.
    pub async fn start(program: &Path, data: &Path, nodes: usize) -> anyhow::Result<Self> {
        let key = seam::random_id().repeat(2);
        let secret_file = data.join("cluster.secret");
        std::fs::write(&secret_file, hex::encode(&key))?;
        let token = ClusterSecret::new(key)?.node_token(0);
        let ports = ports::free(nodes * 3)?;
        let addresses: Vec<_> = ports[..nodes].iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let spec = |i: usize| {
            let flags = [
                ("data", data.join(format!("node-{i}")).display().to_string()),
                ("listen", addresses[i].clone()),
                ("cluster-secret-file", secret_file.display().to_string()),
                ("bootstrap", (i == 0).to_string()),
                ("join", if i == 0 { String::new() } else { addresses.join(",") }),
                ("s3-listen", format!("127.0.0.1:{}", ports[nodes + i])),
                ("http-listen", format!("127.0.0.1:{}", ports[2 * nodes + i])),
                ("log-level", "warn".to_owned()),
                ("cluster-replicas", nodes.min(3).to_string()),
                ("cluster-initial-groups", GROUPS.to_string()),
            ];
            let flags = flags.into_iter().map(|(flag, value)| OsString::from(format!("--{flag}={value}")));
            NodeSpec {
                name: format!("node-{i}"),
                program: program.to_owned(),
                args: std::iter::once("node".into()).chain(flags).collect(),
                log: data.join(format!("node-{i}.log")),
                address: addresses[i].clone(),
            }
        };
        let cluster = start((0..nodes).map(spec).collect(), token.clone()).await?;
        let router = Router::new(RouterConfig { seeds: addresses.clone(), token: token.clone(), ..RouterConfig::default() });
        let mut cairn = Cairn { cluster, addresses, token, secret_file, router, tenant_id: 0 };
        cairn.tenant_id = cairn.tenant(TENANT).await?.tenant_id();
        up("Cairn", UP_WITHIN, &cairn.cluster, async {
            cairn.complete().await;
            Ok(())
        })
        .await?;
        Ok(cairn)
    }

    /// Waits until every group is made and led: a node killed before that keeps groups from being made.
    async fn complete(&self) {
        let led = |groups: &[v1::GroupStatus]| groups.iter().filter(|group| group.role() == v1::Role::Leader).count();
        loop {
            let statuses = self.cluster.statuses().await;
            let groups = self.operator().groups().await.unwrap_or_default();
            let active = groups.iter().filter(|group| group.state() == v1::group_record::State::Active).count();
            if active == GROUPS + 1 && statuses.iter().map(|(_, status)| led(&status.groups)).sum::<usize>() == GROUPS + 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A client of a tenant, made if it is not there, once it takes writes.
    ///
    /// # Errors
    /// If it does not in time.
    pub async fn tenant(&self, name: &str) -> anyhow::Result<Client> {
        let ready = async {
            let operator = self.operator();
            loop {
                let _ = operator.create_tenant(name).await;
                if let Ok(client) = self.router.tenant_named(name).await
                    && client.transact(Vec::new(), vec![operation::put("ready", "1")]).await.is_ok()
                {
                    return Ok(client);
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        up("Cairn", UP_WITHIN, &self.cluster, ready).await
    }

    /// Through the router.
    #[must_use]
    pub fn routed(&self) -> RouterTarget {
        RouterTarget::new(self.router.tenant(self.tenant_id))
    }

    /// Through plain unary gRPC, at the leader of the tenant's group.
    ///
    /// # Errors
    /// If no node answers for the tenant.
    pub async fn unary(&self) -> anyhow::Result<UnaryTarget> {
        let mut candidates: Vec<String> = self.addresses.clone();
        let mut last = None;
        while let Some(address) = candidates.pop() {
            let target = UnaryTarget::connect(&address, &self.token, self.tenant_id).await?;
            match target.probe().await {
                Ok(()) => return Ok(target),
                Err(Error::Moved { redirect: v1::Redirect { leader: Some(leader), .. }, .. }) if candidates.len() < 8 => {
                    candidates.push(leader.address);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or_else(|| anyhow::anyhow!("no node"), Into::into).context("no node answers for the tenant"))
    }

    /// A router that shares nothing with the one in use.
    #[must_use]
    pub fn fresh_router(&self) -> Router {
        Router::new(RouterConfig { seeds: self.addresses.clone(), token: self.token.clone(), ..RouterConfig::default() })
    }

    /// The router in use.
    #[must_use]
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// Does an operator's work.
    #[must_use]
    pub fn operator(&self) -> Operator {
        Operator::new(self.router.clone())
    }

    /// Its processes.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// host:port of the nodes.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// What its nodes accept as a node's token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The tenant whose keys are measured.
    #[must_use]
    pub fn tenant_id(&self) -> u64 {
        self.tenant_id
    }

    /// Runs a verb of the command line on this cluster and waits for its end.
    ///
    /// # Errors
    /// If it fails; with what it said.
    pub async fn command(&self, args: &[&str]) -> anyhow::Result<String> {
        let program = &self.cluster.spec(0).program;
        let asked = tokio::process::Command::new(program)
            .args(args)
            .arg(format!("--endpoint={}", self.addresses.join(",")))
            .arg(format!("--cluster-secret-file={}", self.secret_file.display()))
            .kill_on_drop(true)
            .output();
        let answer = asked.await.with_context(|| format!("can't run {}", program.display()))?;
        let [out, err] = [&answer.stdout, &answer.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        anyhow::ensure!(answer.status.success(), "cairn {}: {}: {err}", args.join(" "), answer.status);
        Ok(out)
    }

    /// Ids of its processes.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        pids(&self.cluster)
    }

    /// Stops them.
    pub async fn stop(self) {
        self.cluster.stop_all(Duration::from_secs(5)).await;
    }
}
