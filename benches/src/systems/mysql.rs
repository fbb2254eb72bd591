//! As much of the MySQL client protocol as a prepared insert takes: handshake without a password, a text query, prepare, execute.
//!
//! Hand-written because the client crates that would do bring second versions of what the workspace has, and because it must cost the
//! machine as little as the gRPC clients that it is compared with: one write and one read per insert, into buffers that stay.

use anyhow::{Context as _, bail, ensure};
use bytes::{Buf as _, BufMut as _};
use std::path::Path;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

// Capabilities: long passwords, protocol 4.1, transactions, secure connection, named authentication.
const CAPABILITIES: u32 = 1 | 0x200 | 0x2000 | 0x8000 | 0x8_0000;
const UTF8MB4: u8 = 45;
const LARGEST_PACKET: u32 = 16 << 20;
const METHOD: &str = "mysql_native_password";
const QUERY: u8 = 0x03;
const PREPARE: u8 = 0x16;
const EXECUTE: u8 = 0x17;
const OK: u8 = 0x00;
const OTHER_METHOD: u8 = 0xfe;
const ERROR: u8 = 0xff;
/// Type of a bound parameter: bytes with their length.
const BLOB: [u8; 2] = [0xfc, 0];
const HEADER_BYTES: usize = 4;

/// A prepared statement of one connection.
#[derive(Debug, Clone, Copy)]
pub struct Statement {
    id: u32,
    parameters: u16,
    bound: bool,
}

/// One connection, in autocommit mode.
pub struct Connection {
    stream: BufReader<UnixStream>,
    out: Vec<u8>,
    packet: Vec<u8>,
    sequence: u8,
}

impl Connection {
    /// Connects as a user without a password.
    ///
    /// # Errors
    /// If the server is not there or refuses.
    pub async fn open(socket: &Path, user: &str) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).await.with_context(|| format!("can't connect to {}", socket.display()))?;
        let mut connection = Connection { stream: BufReader::new(stream), out: Vec::new(), packet: Vec::new(), sequence: 0 };
        connection.receive().await.context("no greeting")?;
        connection.begin();
        connection.out.put_u32_le(CAPABILITIES);
        connection.out.put_u32_le(LARGEST_PACKET);
        connection.out.put_u8(UTF8MB4);
        connection.out.put_bytes(0, 23);
        connection.out.extend_from_slice(user.as_bytes());
        // The end of the name, and a password's proof of no bytes.
        connection.out.put_bytes(0, 2);
        connection.out.extend_from_slice(METHOD.as_bytes());
        connection.out.put_u8(0);
        connection.send().await?;
        connection.receive().await?;
        if connection.packet.first() == Some(&OTHER_METHOD) {
            connection.begin();
            connection.send().await?;
            connection.receive().await?;
        }
        connection.expect_ok("login")?;
        Ok(connection)
    }

    /// A query without rows.
    ///
    /// # Errors
    /// Whatever the server says.
    pub async fn query(&mut self, sql: &str) -> anyhow::Result<()> {
        self.command(QUERY);
        self.out.extend_from_slice(sql.as_bytes());
        self.send().await?;
        self.receive().await?;
        self.expect_ok(sql)
    }

    /// Prepares a statement without rows.
    ///
    /// # Errors
    /// Whatever the server says.
    pub async fn prepare(&mut self, sql: &str) -> anyhow::Result<Statement> {
        self.command(PREPARE);
        self.out.extend_from_slice(sql.as_bytes());
        self.send().await?;
        self.receive().await?;
        self.expect_ok(sql)?;
        let mut answer = &self.packet[1..];
        ensure!(answer.remaining() >= 8, "the answer to a prepare is short");
        let (id, columns, parameters) = (answer.get_u32_le(), answer.get_u16_le(), answer.get_u16_le());
        // Descriptions of both, each list with an end of its own.
        for count in [parameters, columns].into_iter().filter(|count| *count > 0) {
            for _ in 0..=count {
                self.receive().await?;
            }
        }
        Ok(Statement { id, parameters, bound: false })
    }

    /// Executes a statement.
    ///
    /// # Errors
    /// Whatever the server says.
    pub async fn execute(&mut self, statement: &mut Statement, parameters: &[&[u8]]) -> anyhow::Result<()> {
        ensure!(parameters.len() == usize::from(statement.parameters), "{} parameters are wanted", statement.parameters);
        self.command(EXECUTE);
        self.out.put_u32_le(statement.id);
        // No cursor, executed once, no parameter is null.
        self.out.put_u8(0);
        self.out.put_u32_le(1);
        self.out.put_bytes(0, parameters.len().div_ceil(8));
        self.out.put_u8(u8::from(!statement.bound));
        if !statement.bound {
            parameters.iter().for_each(|_| self.out.extend_from_slice(&BLOB));
            statement.bound = true;
        }
        for parameter in parameters {
            put_length(&mut self.out, parameter.len())?;
            self.out.extend_from_slice(parameter);
        }
        self.send().await?;
        self.receive().await?;
        self.expect_ok("execute")
    }

    fn begin(&mut self) {
        self.out.clear();
        self.out.put_bytes(0, HEADER_BYTES);
    }

    fn command(&mut self, command: u8) {
        self.sequence = 0;
        self.begin();
        self.out.put_u8(command);
    }

    async fn send(&mut self) -> anyhow::Result<()> {
        let length = u32::try_from(self.out.len() - HEADER_BYTES).ok().filter(|length| *length < 0xff_ffff);
        let [low, middle, high, _] = length.context("a packet that large is not made here")?.to_le_bytes();
        self.out[..HEADER_BYTES].copy_from_slice(&[low, middle, high, self.sequence]);
        self.stream.get_mut().write_all(&self.out).await?;
        Ok(())
    }

    async fn receive(&mut self) -> anyhow::Result<()> {
        let mut header = [0; HEADER_BYTES];
        self.stream.read_exact(&mut header).await.context("the server closed the connection")?;
        let [low, middle, high, sequence] = header;
        self.sequence = sequence.wrapping_add(1);
        self.packet.resize(u32::from_le_bytes([low, middle, high, 0]) as usize, 0);
        self.stream.read_exact(&mut self.packet).await?;
        Ok(())
    }

    fn expect_ok(&self, what: &str) -> anyhow::Result<()> {
        match self.packet.first() {
            Some(&OK) => Ok(()),
            Some(&ERROR) => bail!("{what}: {}", String::from_utf8_lossy(self.packet.get(3..).unwrap_or_default())),
            other => bail!("{what}: an answer of kind {other:?}"),
        }
    }
}

/// A length as the protocol writes it.
fn put_length(out: &mut Vec<u8>, length: usize) -> anyhow::Result<()> {
    match u16::try_from(length).context("a parameter that long is not sent here")? {
        short @ 0..=250 => out.put_u8(u8::try_from(short)?),
        long => {
            out.put_u8(0xfc);
            out.put_u16_le(long);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_as_the_protocol_has_them() {
        let encoded = |length| {
            let mut out = Vec::new();
            put_length(&mut out, length).map(|()| out)
        };
        assert_eq!(encoded(250).expect("short"), [250]);
        assert_eq!(encoded(251).expect("long"), [0xfc, 251, 0]);
        assert_eq!(encoded(256).expect("long"), [0xfc, 0, 1]);
        assert!(encoded(1 << 16).is_err());
    }
}
