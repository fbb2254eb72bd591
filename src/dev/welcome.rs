//! What a person sees when the cluster is up: where it is, as whom to use it, and what to try next.

use super::{DEMO, DevCluster};
use crate::failure::Failure;
use crate::output::{self, Format, Output, Show};
use serde::Serialize;

/// A running cluster, for programs.
#[derive(Serialize)]
struct Welcome {
    nodes: Vec<Endpoints>,
    folder: String,
    credentials_file: String,
    bucket: &'static str,
    tenant: &'static str,
    region: String,
    access_key_id: String,
    secret_access_key: String,
    ready_in_ms: u128,
}

#[derive(Serialize)]
struct Endpoints {
    name: String,
    grpc: String,
    s3: String,
    http: String,
    pid: Option<u32>,
}

impl Show for Welcome {
    fn columns(&self) -> Vec<&'static str> {
        vec!["NODE", "GRPC", "S3", "HTTP", "PROCESS"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |node: &Endpoints| {
            vec![
                node.name.clone(),
                node.grpc.clone(),
                node.s3.clone(),
                node.http.clone(),
                node.pid.map_or("down".into(), |pid| pid.to_string()),
            ]
        };
        self.nodes.iter().map(row).collect()
    }
}

/// Tells that the cluster is up.
pub(super) fn show(running: &DevCluster, output: Output) -> Result<(), Failure> {
    let key = running.context.tenants.get(DEMO).ok_or_else(|| Failure::failed("the credentials file has no key of the tenant demo"))?;
    let http = running.folder.http_endpoints();
    let doors = running.context.endpoints.iter().zip(&running.context.s3_endpoints).zip(http).enumerate();
    let endpoints = |(node, ((grpc, s3), http)): (usize, ((&String, &String), String))| {
        let state = running.cluster.state(node);
        Endpoints { name: state.name, grpc: grpc.clone(), s3: s3.clone(), http, pid: state.pid }
    };
    let welcome = Welcome {
        nodes: doors.map(endpoints).collect(),
        folder: running.folder.path().display().to_string(),
        credentials_file: running.folder.credentials().display().to_string(),
        bucket: DEMO,
        tenant: DEMO,
        region: running.context.region.clone(),
        access_key_id: key.access_key_id.clone(),
        secret_access_key: key.secret_access_key.clone(),
        ready_in_ms: running.took.as_millis(),
    };
    output.show(&welcome)?;
    if output.format != Format::Table {
        return Ok(());
    }
    let s3 = welcome.nodes.first().map_or("", |node| node.s3.as_str());
    // A context that is not where the commands look for it must be named.
    let elsewhere = std::env::current_dir().ok().map(|here| here.join("cairn-data")).as_deref() != Some(running.folder.path());
    let context = if elsewhere { format!(" --context {}", welcome.credentials_file) } else { String::new() };
    output::line(&format!(
        "\nready in {:.1} s; bucket {DEMO}; keys in {}\n\nTry, in another terminal:\n  \
         cairn admin status{context}\n  cairn fs ls /{DEMO}{context}\n  \
         AWS_ACCESS_KEY_ID={} AWS_SECRET_ACCESS_KEY={} AWS_REGION={} aws --endpoint-url {s3} s3 cp README.md s3://{DEMO}/\n\nCtrl-C stops it.",
        running.took.as_secs_f64(),
        welcome.credentials_file,
        welcome.access_key_id,
        welcome.secret_access_key,
        welcome.region,
    ))
}
