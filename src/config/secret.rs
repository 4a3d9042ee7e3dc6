//! Reads the keys that encrypt signing secrets at rest.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use toml::Value;
use zeroize::Zeroizing;

use super::schema::{Kind, Problem};
use super::values::{REDACTED, quoted, secret_text, wrong_kind};
use crate::domain::keys::{KEY_ID_BYTES_MAX, KeyRing, MasterKey};
use crate::domain::signature::Secret;

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
            let key = read_key(item).map_err(place)?;
            if let Err(key) = ring.add(key) {
                let problem = format!("has the id `{}` of an earlier key", key.id);
                return Err(place(Problem::new(problem)));
            }
        }
        Ok(ring)
    }

    fn show(&self) -> Option<String> {
        let shown = |key: &MasterKey| quoted(&format!("{}:{REDACTED}", key.id));
        let keys: Vec<_> = self.iter().map(shown).collect();
        (!keys.is_empty()).then(|| format!("[{}]", keys.join(", ")))
    }
}

fn read_key(value: &Value) -> Result<MasterKey, Problem> {
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
    if !(1..=KEY_ID_BYTES_MAX).contains(&id.len()) || !id.bytes().all(allowed) {
        return Err(Problem::new(format!(
            "must have an id of 1 to {KEY_ID_BYTES_MAX} characters of A–Z, a–z, 0–9, `.`, `_` and `-` \
             before the `:`"
        )));
    }
    let decoded = BASE64.decode(encoded.trim()).map(Zeroizing::new);
    let bytes = decoded.map_err(|_| Problem::new("must have base64 after the `:`"))?;
    let key: [u8; 32] = bytes.as_slice().try_into().map_err(|_| {
        let found = bytes.len();
        Problem::new(format!("must have a key of 32 bytes, found {found}"))
    })?;
    Ok(MasterKey {
        id: id.to_owned(),
        key: Secret::new(key),
    })
}
