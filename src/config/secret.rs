//! The keys that encrypt signing secrets at rest.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use toml::Value;
use zeroize::Zeroizing;

use super::schema::{Kind, Problem};
use super::values::{REDACTED, quoted, secret_text, wrong_kind};
use crate::domain::signature::Secret;

const ID_BYTES_MAX: usize = 32;

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

impl Kind for KeyRing {
    fn form() -> String {
        "an array of keys such as `[\"<id>:<base64 of 32 bytes>\"]`".to_owned()
    }

    fn read(value: &Value) -> Result<Self, Problem> {
        let Value::Array(items) = value else {
            return Err(wrong_kind::<Self>(value));
        };
        let mut ring = Self::default();
        for (i, item) in items.iter().enumerate() {
            let place = |problem: Problem| problem.below(&format!("[{i}]"));
            let key = MasterKey::read(item).map_err(place)?;
            if ring.find(&key.id).is_some() {
                let problem = format!("has the id `{}` of an earlier key", key.id);
                return Err(place(Problem::new(problem)));
            }
            ring.0.push(key);
        }
        Ok(ring)
    }

    fn show(&self) -> Option<String> {
        let shown = |key: &MasterKey| quoted(&format!("{}:{REDACTED}", key.id));
        let keys: Vec<_> = self.iter().map(shown).collect();
        (!keys.is_empty()).then(|| format!("[{}]", keys.join(", ")))
    }
}

impl MasterKey {
    fn read(value: &Value) -> Result<Self, Problem> {
        let text = match value {
            Value::String(_) => secret_text::<String>(value)?,
            _ => return Err(wrong_kind::<String>(value)),
        };
        let Some((id, encoded)) = text.split_once(':') else {
            return Err(Problem::new(
                "must be `<id>:<base64 of 32 bytes>`, found no `:`",
            ));
        };
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if !(1..=ID_BYTES_MAX).contains(&id.len()) || !id.bytes().all(allowed) {
            return Err(Problem::new(format!(
                "must have an id of 1 to {ID_BYTES_MAX} characters of A–Z, a–z, 0–9, `.`, `_` and `-` \
                 before the `:`"
            )));
        }
        let decoded = BASE64.decode(encoded.trim()).map(Zeroizing::new);
        let bytes = decoded.map_err(|_| Problem::new("must have base64 after the `:`"))?;
        let key: [u8; 32] = bytes.as_slice().try_into().map_err(|_| {
            let found = bytes.len();
            Problem::new(format!("must have a key of 32 bytes, found {found}"))
        })?;
        Ok(Self {
            id: id.to_owned(),
            key: Secret::new(key),
        })
    }
}
