//! Access keys: credentials of operators and of tenants.

use super::Operator;
use crate::{condition, operation};
use metadb_proto::v1::{KeyRecord, TenantRecord, key_record, tenant_record};
use metadb_proto::{Error, directory, seam};
use prost::Message as _;

/// Length of an access key id, as AWS has it.
const ID_CHARS: usize = 20;
/// Length of a secret: 40 characters of 6 bits.
const SECRET_CHARS: usize = 40;
/// Longest description, in bytes.
const DESCRIPTION_BYTES: usize = 256;
const ID_ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const SECRET_ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Operator {
    /// All keys, without their secrets.
    ///
    /// # Errors
    /// As [`crate::Client::scan`].
    pub async fn keys(&self) -> Result<Vec<KeyRecord>, Error> {
        let keys: Vec<KeyRecord> = self.all("key").await?;
        Ok(keys.into_iter().map(|key| KeyRecord { secret: String::new(), ..key }).collect())
    }

    /// Makes a key for an operator (tenant 0) or for a tenant. Its secret is shown here and never again.
    ///
    /// # Errors
    /// [`Error::Invalid`] if role and tenant do not fit; [`Error::NotFound`] if there is no such tenant.
    pub async fn create_key(&self, role: key_record::Role, tenant_id: u64, description: &str) -> Result<KeyRecord, Error> {
        if description.len() > DESCRIPTION_BYTES {
            return Err(Error::invalid(
                "description",
                format!("at most {DESCRIPTION_BYTES} bytes"),
                format!("{} bytes", description.len()),
            ));
        }
        let mut conditions = Vec::new();
        match role {
            key_record::Role::Operator if tenant_id == 0 => {}
            key_record::Role::Operator => return Err(Error::invalid("tenant_id", "0 for an operator's key", tenant_id.to_string())),
            key_record::Role::Tenant if tenant_id != 0 => {
                let row = self.directory().get(directory::tenant_key(tenant_id)).await?;
                let row = row.ok_or_else(|| Error::not_found(format!("tenant {tenant_id}")))?;
                let tenant: TenantRecord = super::record(&row)?;
                if tenant.state() == tenant_record::State::Deleting {
                    return Err(Error::not_found(format!("tenant {tenant_id}: it is being deleted")));
                }
                // So that no key outlives a tenant deleted meanwhile.
                conditions.push(condition::exists(directory::tenant_key(tenant_id)));
            }
            key_record::Role::Tenant => return Err(Error::invalid("tenant_id", "a tenant, for a tenant's key", "0")),
            key_record::Role::Unspecified => return Err(Error::invalid("role", "operator or tenant", "unspecified")),
        }
        let key = KeyRecord {
            access_key_id: random_text(ID_ALPHABET, ID_CHARS),
            secret: random_text(SECRET_ALPHABET, SECRET_CHARS),
            role: role.into(),
            tenant_id,
            description: description.to_owned(),
            created_at_ms: seam::unix_ms(),
        };
        let row = directory::access_key_key(&key.access_key_id);
        conditions.push(condition::absent(row.clone()));
        let put = operation::put(row, key.encode_to_vec());
        let answer = self.directory().transact(conditions, vec![put]).await?;
        if answer.committed {
            Ok(key)
        } else {
            Err(Error::Conflict { message: format!("tenant {tenant_id} is going, or the key id was drawn twice") })
        }
    }

    /// Takes a key back. It stops working within [`crate::credentials::REMEMBERED`].
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub async fn revoke_key(&self, access_key_id: &str) -> Result<(), Error> {
        let row = directory::access_key_key(access_key_id);
        let answer = self.directory().transact(vec![condition::exists(row.clone())], vec![operation::delete(row)]).await?;
        if answer.committed { Ok(()) } else { Err(Error::not_found(format!("key {access_key_id}"))) }
    }
}

/// Characters drawn evenly: draws past the last multiple of the alphabet's length are thrown away.
fn random_text(alphabet: &[u8], chars: usize) -> String {
    let fair = 256 - 256 % alphabet.len();
    let mut text = String::with_capacity(chars);
    while text.len() < chars {
        for byte in seam::random_u64().to_be_bytes() {
            if usize::from(byte) < fair && text.len() < chars {
                text.push(char::from(alphabet[usize::from(byte) % alphabet.len()]));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_look_as_promised_and_differ() {
        let id = random_text(ID_ALPHABET, ID_CHARS);
        assert!(id.len() == 20 && id.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit()), "{id}");
        let secrets: std::collections::BTreeSet<String> = (0..100).map(|_| random_text(SECRET_ALPHABET, SECRET_CHARS)).collect();
        assert!(
            secrets.len() == 100
                && secrets.iter().all(|s| s.len() == 40 && s.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c)))
        );
    }
}
