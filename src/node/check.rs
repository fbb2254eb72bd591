//! `cairn node --check`: what a start would trip over, found without a start. Nothing is written, and no port stays taken.

use super::bind;
use crate::config::NodeConfig;
use crate::datadir::DataDir;
use crate::failure::Failure;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a node named in `join` may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// Looks at the secret, the data folder, the ports and the nodes to join. Says in lines what a person should know although it is no error.
pub(crate) async fn check(config: &NodeConfig) -> Result<Vec<String>, Failure> {
    let secret = config.secret()?;
    let identity = DataDir::look(&config.data, Some(config.cluster_id.as_str()).filter(|id| !id.is_empty()), &secret)?;
    let doors = [("listen", &config.listen), ("s3.listen", &config.s3.listen), ("http.listen", &config.http.listen)];
    // The last may be left out.
    for (field, address) in doors.into_iter().filter(|(_, address)| !address.is_empty()) {
        drop(bind(field, address).await?.listen(1).map_err(|error| super::cant_listen(field, address, &error))?);
    }
    let mut notes = Vec::new();
    match &identity {
        Some(identity) => notes.push(format!(
            "the data folder {} is that of node {} of cluster {}",
            config.data.display(),
            identity.node_id,
            identity.cluster_id
        )),
        None if config.bootstrap => notes.push(format!("the data folder {} is new: a start makes a new cluster", config.data.display())),
        None if config.join.is_empty() => return Err(super::identity::nowhere_to_go(config)),
        None => notes.push(format!("the data folder {} is new: a start joins a cluster", config.data.display())),
    }
    let mut reached = 0;
    for address in &config.join {
        if address == config.address() {
            notes.push(format!("join names this node itself ({address}), which tells it nothing"));
            continue;
        }
        match resolve(address).await? {
            None => reached += 1,
            Some(why) => notes.push(format!("the node at {address} (join) can't be reached now: {why}")),
        }
    }
    if identity.is_none() && !config.bootstrap && reached == 0 {
        notes.push("no node of `join` can be reached: a start waits until one can".to_owned());
    }
    Ok(notes)
}

/// Looks an address up and connects to it. A name that nobody knows is an error; a node that is down is none, and is told.
async fn resolve(address: &str) -> Result<Option<String>, Failure> {
    let unknown = |why: String| {
        Failure::usage(format!("the address {address} (join) leads nowhere: {why}"))
            .hint("write host:port of the gRPC door of a node of the cluster")
    };
    let found = tokio::net::lookup_host(address).await.map_err(|error| unknown(error.to_string()))?.next();
    let found = found.ok_or_else(|| unknown("the name has no address".to_owned()))?;
    Ok(match timeout(CONNECT_WITHIN, TcpStream::connect(found)).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no answer within {} s", CONNECT_WITHIN.as_secs())),
    })
}
