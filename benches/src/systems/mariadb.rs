//! One MariaDB server with its own data folder, unreplicated, that syncs its log at every commit; asked by prepared inserts.
//!
//! What is not set is as Debian has it: the doublewrite buffer is on, there is no binary log, a connection has a thread.

use super::mysql::{Connection, Statement};
use super::{leashed, pids, start, up};
use crate::plan::MARIADB_CLIENTS;
use crate::target::Target;
use anyhow::{Context as _, bail};
use bytes::Bytes;
use jepsen::{Cluster, NodeSpec};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::Mutex;

/// It is up well within this.
const UP_WITHIN: Duration = Duration::from_secs(30);
const WHERE_FROM: &str = "MariaDB (Debian: apt-get install mariadb-server)";
/// Where Debian has servers that are not in a user's path.
const SBIN: &str = "/usr/sbin";
/// Whoever is root on this machine is root in the database, with no password: its socket is in a folder of ours.
const USER: &str = "root";
const CREATE: &str = "CREATE OR REPLACE TABLE bench.kv (k VARBINARY(255) NOT NULL PRIMARY KEY, v BLOB NOT NULL) ENGINE=InnoDB";
const INSERT: &str = "INSERT INTO bench.kv (k, v) VALUES (?, ?)";
/// Bytes of a Unix socket's path that the kernel takes.
const SOCKET_PATH_BYTES: usize = 107;

/// A data folder with the system's own tables, made once and used by every start.
pub struct Installed {
    program: PathBuf,
    data: PathBuf,
}

impl Installed {
    /// Makes the folder.
    ///
    /// # Errors
    /// If MariaDB is not there or can't make it.
    pub async fn new(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        let program = located(program);
        let data = std::path::absolute(folder.join("mariadb"))?;
        std::fs::create_dir_all(&data)?;
        let install = Command::new("mariadb-install-db")
            .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
            .arg(format!("--user={}", user()?))
            .arg(format!("--datadir={}", data.display()))
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| format!("can't run mariadb-install-db: {WHERE_FROM}"))?;
        if !install.status.success() {
            let [out, err] = [&install.stdout, &install.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            bail!("mariadb-install-db, {}: {}{}", install.status, out, err);
        }
        Ok(Installed { program, data })
    }

    /// Starts the server with an empty table.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn start(&self) -> anyhow::Result<Mariadb> {
        let socket = self.data.with_file_name("mariadb.sock");
        anyhow::ensure!(
            socket.as_os_str().len() <= SOCKET_PATH_BYTES,
            "the socket's path is longer than {SOCKET_PATH_BYTES} bytes: {}; choose a shorter --out",
            socket.display()
        );
        let most = MARIADB_CLIENTS.into_iter().max().unwrap_or(1) + 16;
        let args = [
            "--no-defaults".to_owned(),
            format!("--user={}", user()?),
            format!("--datadir={}", self.data.display()),
            format!("--socket={}", socket.display()),
            format!("--pid-file={}", self.data.with_file_name("mariadb.pid").display()),
            "--skip-networking".to_owned(),
            format!("--max-connections={most}"),
            "--innodb-flush-log-at-trx-commit=1".to_owned(),
            "--innodb-log-file-size=512M".to_owned(),
            "--innodb-buffer-pool-size=1G".to_owned(),
        ];
        let (program, args) = leashed(&self.program, args.into_iter().map(OsString::from).collect());
        let log = self.data.with_file_name("mariadb.log");
        let spec = NodeSpec { name: "mariadb".into(), program, args, log, address: socket.display().to_string() };
        let cluster = start(vec![spec], String::new()).await?;
        let ready = async {
            loop {
                if let Ok(mut connection) = Connection::open(&socket, USER).await {
                    connection.query("CREATE DATABASE IF NOT EXISTS bench").await?;
                    return connection.query(CREATE).await;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        up(WHERE_FROM, UP_WITHIN, &cluster, ready).await?;
        Ok(Mariadb { cluster, socket })
    }
}

/// The name, or Debian's place for it.
fn located(program: &Path) -> PathBuf {
    let in_sbin = Path::new(SBIN).join(program);
    if program.components().count() == 1 && in_sbin.exists() { in_sbin } else { program.to_owned() }
}

/// Who runs this: the server refuses to be root unless it is told to.
fn user() -> anyhow::Result<String> {
    let whoami = std::process::Command::new("id").arg("-un").output().context("can't run id")?;
    Ok(String::from_utf8_lossy(&whoami.stdout).trim().to_owned())
}

/// The running server.
pub struct Mariadb {
    cluster: Cluster,
    socket: PathBuf,
}

impl Mariadb {
    /// Opens a connection for each client.
    ///
    /// # Errors
    /// If the server refuses one.
    pub async fn connect(&self, clients: usize) -> anyhow::Result<MariadbTarget> {
        let mut sessions = Vec::with_capacity(clients);
        for _ in 0..clients {
            let mut connection = Connection::open(&self.socket, USER).await?;
            let insert = connection.prepare(INSERT).await?;
            sessions.push(Mutex::new(Session { connection, insert, inserted: 0 }));
        }
        Ok(MariadbTarget { sessions })
    }

    /// Empties the table.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn empty(&self) -> anyhow::Result<()> {
        Connection::open(&self.socket, USER).await?.query(CREATE).await
    }

    /// Ids of its processes.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        pids(&self.cluster)
    }

    /// Stops it.
    pub async fn stop(self) {
        self.cluster.stop_all(Duration::from_secs(10)).await;
    }
}

struct Session {
    connection: Connection,
    insert: Statement,
    inserted: u64,
}

/// MariaDB over a connection per client. Its puts are inserts of rows that are new, which is what it does best.
pub struct MariadbTarget {
    sessions: Vec<Mutex<Session>>,
}

impl Target for MariadbTarget {
    async fn put(&self, client: usize, _: Bytes, value: Bytes) -> anyhow::Result<()> {
        let client = client % self.sessions.len();
        let mut session = self.sessions[client].lock().await;
        let Session { connection, insert, inserted } = &mut *session;
        let key = format!("bench/{client:04}/{inserted:08}");
        *inserted += 1;
        connection.execute(insert, &[key.as_bytes(), &value]).await
    }

    async fn get(&self, _: usize, _: Bytes) -> anyhow::Result<bool> {
        bail!("only inserts are measured")
    }

    async fn scan(&self, _: usize, _: Bytes, _: Bytes, _: u32) -> anyhow::Result<usize> {
        bail!("only inserts are measured")
    }
}
