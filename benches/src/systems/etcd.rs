//! Three etcd processes with fresh data, and how they are asked: unary gRPC, at the leader or wherever an answer comes from.

use super::{leashed, pids, ports, start, up};
use crate::etcd_api::kv_client::KvClient;
use crate::etcd_api::maintenance_client::MaintenanceClient;
use crate::etcd_api::{PutRequest, RangeRequest, StatusRequest};
use crate::plan::CONNECTIONS;
use crate::target::Target;
use bytes::Bytes;
use jepsen::{Cluster, NodeSpec};
use std::path::Path;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// It is up well within this.
const UP_WITHIN: Duration = Duration::from_secs(20);
/// A person who has no etcd.
const WHERE_FROM: &str = "etcd (Debian: apt-get install etcd-server)";

/// The running processes.
pub struct Etcd {
    cluster: Cluster,
    addresses: Vec<String>,
}

impl Etcd {
    /// Starts three, and waits until they have a leader.
    ///
    /// # Errors
    /// If they can't be started or don't elect in time.
    pub async fn start(program: &Path, data: &Path) -> anyhow::Result<Self> {
        let ports = ports::free(6)?;
        let (clients, peers) = ports.split_at(3);
        let everyone: Vec<_> = peers.iter().enumerate().map(|(i, port)| format!("e{i}=http://127.0.0.1:{port}")).collect();
        let spec = |i: usize| {
            let url = |port: u16| format!("http://127.0.0.1:{port}");
            let folder = data.join(format!("e{i}"));
            let pairs = [
                ("--name", format!("e{i}")),
                ("--data-dir", folder.display().to_string()),
                ("--listen-client-urls", url(clients[i])),
                ("--advertise-client-urls", url(clients[i])),
                ("--listen-peer-urls", url(peers[i])),
                ("--initial-advertise-peer-urls", url(peers[i])),
                ("--initial-cluster", everyone.join(",")),
                ("--log-level", "error".to_owned()),
            ];
            let args = pairs.into_iter().flat_map(|(flag, value)| [flag.into(), value.into()]).collect();
            let (program, args) = leashed(program, args);
            let address = format!("127.0.0.1:{}", clients[i]);
            NodeSpec { name: format!("etcd-{i}"), program, args, log: data.join(format!("e{i}.log")), address }
        };
        let cluster = start((0..3).map(spec).collect(), String::new()).await?;
        let etcd = Etcd { addresses: clients.iter().map(|port| format!("http://127.0.0.1:{port}")).collect(), cluster };
        up(WHERE_FROM, UP_WITHIN, &etcd.cluster, async { Ok(etcd.leader().await) }).await?;
        Ok(etcd)
    }

    /// Connects to the leader.
    ///
    /// # Errors
    /// If there is none in time.
    pub async fn connect(&self) -> anyhow::Result<EtcdTarget> {
        let leader = up(WHERE_FROM, UP_WITHIN, &self.cluster, async { Ok(self.leader().await) }).await?;
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(KvClient::new(Endpoint::from_shared(self.addresses[leader].clone())?.connect().await?));
        }
        Ok(EtcdTarget { clients })
    }

    /// Which node leads, once one does.
    pub async fn leader(&self) -> usize {
        loop {
            for (node, address) in self.addresses.iter().enumerate() {
                let asked = async {
                    let endpoint = Endpoint::from_shared(address.clone())?.timeout(Duration::from_secs(1));
                    let channel = endpoint.connect().await?;
                    let status = MaintenanceClient::new(channel).status(StatusRequest {}).await?.into_inner();
                    let me = status.header.map_or(0, |header| header.member_id);
                    anyhow::Ok(me != 0 && me == status.leader)
                };
                if asked.await.unwrap_or(false) {
                    return node;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a node answers and follows a leader.
    ///
    /// # Errors
    /// If its address is none.
    pub async fn answers(&self, node: usize) -> anyhow::Result<()> {
        let endpoint = Endpoint::from_shared(self.addresses[node].clone())?.timeout(Duration::from_secs(1));
        loop {
            if let Ok(channel) = endpoint.connect().await
                && let Ok(status) = MaintenanceClient::new(channel).status(StatusRequest {}).await
                && status.get_ref().leader != 0
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Its processes.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Where its nodes are asked, as URLs.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Ids of its processes.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        pids(&self.cluster)
    }

    /// Stops them.
    pub async fn stop(self) {
        self.cluster.stop_all(Duration::from_secs(3)).await;
    }
}

/// etcd at its leader.
pub struct EtcdTarget {
    clients: Vec<KvClient<Channel>>,
}

impl EtcdTarget {
    fn client(&self, client: usize) -> KvClient<Channel> {
        self.clients[client % self.clients.len()].clone()
    }
}

impl Target for EtcdTarget {
    async fn put(&self, client: usize, key: Bytes, value: Bytes) -> anyhow::Result<()> {
        self.client(client).put(PutRequest { key, value, lease: 0 }).await?;
        Ok(())
    }

    async fn get(&self, client: usize, key: Bytes) -> anyhow::Result<bool> {
        let answer = self.client(client).range(RangeRequest { key, ..RangeRequest::default() }).await?;
        Ok(!answer.into_inner().kvs.is_empty())
    }

    async fn scan(&self, client: usize, start: Bytes, end: Bytes, limit: u32) -> anyhow::Result<usize> {
        let range = RangeRequest { key: start, range_end: end, limit: i64::from(limit), ..RangeRequest::default() };
        Ok(self.client(client).range(range).await?.into_inner().kvs.len())
    }
}
