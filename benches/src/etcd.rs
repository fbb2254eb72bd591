//! Three etcd processes with fresh data, and how they are asked: unary gRPC at the leader.

use crate::etcd_api::kv_client::KvClient;
use crate::etcd_api::maintenance_client::MaintenanceClient;
use crate::etcd_api::{PutRequest, RangeRequest, StatusRequest};
use crate::plan::CONNECTIONS;
use crate::ports;
use crate::target::Target;
use anyhow::Context as _;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use jepsen::{Cluster, NodeSpec};
use std::path::Path;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// It is up well within this.
const UP_WITHIN: Duration = Duration::from_secs(20);

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
            NodeSpec {
                name: format!("etcd-{i}"),
                program: program.to_owned(),
                args: pairs.into_iter().flat_map(|(flag, value)| [flag.into(), value.into()]).collect(),
                log: data.join(format!("e{i}.log")),
                address: format!("127.0.0.1:{}", clients[i]),
            }
        };
        let cluster = Cluster::new((0..3).map(spec).collect(), String::new());
        cluster.start_all().await.context("etcd (Debian: apt-get install etcd-server)")?;
        Ok(Etcd { addresses: clients.iter().map(|port| format!("http://127.0.0.1:{port}")).collect(), cluster })
    }

    /// Connects to the leader.
    ///
    /// # Errors
    /// If there is none in time.
    pub async fn connect(&self) -> anyhow::Result<EtcdTarget> {
        let leader = tokio::time::timeout(UP_WITHIN, self.leader()).await.context("etcd has no leader")?;
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(KvClient::new(Endpoint::from_shared(leader.clone())?.connect().await?));
        }
        Ok(EtcdTarget { clients })
    }

    async fn leader(&self) -> String {
        loop {
            for address in &self.addresses {
                let asked = async {
                    let channel = Endpoint::from_shared(address.clone())?.connect().await?;
                    let status = MaintenanceClient::new(channel).status(StatusRequest {}).await?.into_inner();
                    let me = status.header.map_or(0, |header| header.member_id);
                    anyhow::Ok(me != 0 && me == status.leader)
                };
                if asked.await.unwrap_or(false) {
                    return address.clone();
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
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

impl Target for EtcdTarget {
    fn put(&self, client: usize, key: Bytes, value: Bytes) -> BoxFuture<'_, anyhow::Result<()>> {
        let mut kv = self.clients[client % self.clients.len()].clone();
        async move {
            kv.put(PutRequest { key, value, lease: 0 }).await?;
            Ok(())
        }
        .boxed()
    }

    fn get(&self, client: usize, key: Bytes) -> BoxFuture<'_, anyhow::Result<bool>> {
        let mut kv = self.clients[client % self.clients.len()].clone();
        async move { Ok(!kv.range(RangeRequest { key, ..RangeRequest::default() }).await?.into_inner().kvs.is_empty()) }.boxed()
    }
}
