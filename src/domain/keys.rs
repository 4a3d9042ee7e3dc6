//! The keys that encrypt signing secrets at rest, each with a name.

use super::signature::Secret;

/// Longest name of a key, in bytes.
pub const KEY_ID_BYTES_MAX: usize = 32;

/// `secrets.keys`: the first encrypts, all decrypt. No two have the same id.
#[derive(Clone, Debug, Default)]
pub struct KeyRing(Vec<MasterKey>);

/// A key and the id that is stored beside what it encrypted. Its `Debug` shows the id.
#[derive(Clone, Debug)]
pub struct MasterKey {
    /// Its name.
    pub id: String,
    /// 32 random bytes.
    pub key: Secret,
}

impl KeyRing {
    /// Puts `key` behind the others. Gives it back when there is one with its id.
    ///
    /// # Errors
    /// The key.
    pub fn add(&mut self, key: MasterKey) -> Result<(), MasterKey> {
        if self.find(&key.id).is_some() {
            return Err(key);
        }
        self.0.push(key);
        Ok(())
    }

    /// The key that encrypts; `None` when secrets are not encrypted.
    pub fn first(&self) -> Option<&MasterKey> {
        self.0.first()
    }

    /// The key that encrypted something.
    pub fn find(&self, id: &str) -> Option<&MasterKey> {
        self.iter().find(|key| key.id == id)
    }

    /// All keys.
    pub fn iter(&self) -> impl Iterator<Item = &MasterKey> {
        self.0.iter()
    }
}
