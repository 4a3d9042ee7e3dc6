//! The search: what is looked for, in every form in which it may have been written down.

use std::collections::{BTreeSet, HashMap};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use carillon::domain::signature::Secret;

/// What is compared: the first and the last bytes of each form, so that what was cut off is found
/// too. So many that they do not occur by chance: more where few of them stand for one byte.
const DENSE: usize = 16;
const SPARSE: usize = 48;

/// A form: its name, how much is compared, and all that it may look like.
type Form = (&'static str, usize, fn(&[u8]) -> Vec<Vec<u8>>);

/// How bytes may have been written down. Padding does not matter, as the ends are looked for.
pub const FORMS: &[Form] = &[
    ("as it is", DENSE, |bytes| {
        let text = std::str::from_utf8(bytes).ok();
        let as_json = text.map(|text| serde_json::to_vec(text).unwrap());
        let inside = as_json.map(|text| text[1..text.len() - 1].to_vec());
        [bytes.to_vec()].into_iter().chain(inside).collect()
    }),
    ("hex", DENSE, |bytes| {
        vec![each(bytes, "", |b| format!("{b:02x}"))]
    }),
    ("HEX", DENSE, |bytes| {
        vec![each(bytes, "", |b| format!("{b:02X}"))]
    }),
    ("base64", DENSE, |bytes| shifted(bytes, &STANDARD_NO_PAD)),
    ("base64 of URLs", DENSE, |bytes| {
        shifted(bytes, &URL_SAFE_NO_PAD)
    }),
    ("form", DENSE, |bytes| {
        let text: String = url::form_urlencoded::byte_serialize(bytes).collect();
        vec![text.into_bytes()]
    }),
    ("percent", SPARSE, |bytes| {
        vec![
            each(bytes, "", |b| format!("%{b:02X}")),
            each(bytes, "", |b| format!("%{b:02x}")),
        ]
    }),
    ("escapes of JSON", SPARSE, |bytes| {
        let once = each(bytes, "", |b| format!("\\u{b:04x}"));
        let twice = String::from_utf8_lossy(&once).replace('\\', "\\\\");
        vec![once, twice.into_bytes()]
    }),
    ("numbers", SPARSE, |bytes| {
        vec![
            each(bytes, ", ", |b| b.to_string()),
            each(bytes, ",", |b| b.to_string()),
        ]
    }),
    ("a byte string", DENSE, |bytes| {
        let once = bytes.escape_ascii().to_string();
        vec![once.replace('\\', "\\\\").into_bytes(), once.into_bytes()]
    }),
];

fn each(bytes: &[u8], between: &str, written: fn(u8) -> String) -> Vec<u8> {
    let written: Vec<String> = bytes.iter().map(|b| written(*b)).collect();
    written.join(between).into_bytes()
}

/// What of the base64 of a longer text stands for `bytes` alone, wherever they begin in it.
fn shifted(bytes: &[u8], engine: &impl Engine) -> Vec<Vec<u8>> {
    let of_lead = |lead: usize| {
        let text = engine.encode([&vec![0; lead], bytes].concat());
        let (begin, end) = ((lead * 8).div_ceil(6), (lead + bytes.len()) * 8 / 6);
        text.as_bytes()[begin..end].to_vec()
    };
    (0..3).map(of_lead).collect()
}

/// What is looked for.
#[derive(Clone)]
pub struct Needle {
    /// What it is.
    pub name: String,
    pub bytes: Vec<u8>,
}

impl Needle {
    pub fn new(name: impl Into<String>, bytes: impl AsRef<[u8]>) -> Self {
        Self {
            name: name.into(),
            bytes: bytes.as_ref().to_vec(),
        }
    }

    /// A secret of 32 bytes: these, and the texts by which people know them, which may have been
    /// written down in other forms again.
    pub fn of_secret(name: &str, secret: &Secret) -> [Self; 3] {
        let whsec = secret.to_whsec();
        [
            Self::new(name, secret.bytes()),
            Self::new(format!("{name}, its hex"), secret.to_hex().as_bytes()),
            Self::new(format!("{name}, its base64"), &whsec["whsec_".len()..]),
        ]
    }
}

/// A place that was searched and what was found there: which needle, in which form.
pub type Found = BTreeSet<(String, &'static str)>;

/// Finds needles in all their forms, in one pass.
pub struct Search {
    /// Which needle and form a window belongs to.
    windows: HashMap<Vec<u8>, (usize, &'static str)>,
    /// Whether a window begins with these two bytes: most of what is searched is passed over so.
    begins: Vec<bool>,
    names: Vec<String>,
}

impl Search {
    pub fn new(needles: &[Needle]) -> Self {
        let mut search = Self {
            windows: HashMap::new(),
            begins: vec![false; 1 << 16],
            names: Vec::new(),
        };
        for (n, needle) in needles.iter().enumerate() {
            search.names.push(needle.name.clone());
            for (form, size, written) in FORMS {
                for text in written(&needle.bytes) {
                    assert!(text.len() >= *size, "{} is too short", needle.name);
                    for window in [&text[..*size], &text[text.len() - size..]] {
                        search.begins[begin_of(window)] = true;
                        search.windows.entry(window.to_vec()).or_insert((n, form));
                    }
                }
            }
        }
        search
    }

    /// What is in `piece`.
    pub fn found(&self, piece: &[u8]) -> Found {
        let places = self.places(piece).into_iter();
        places.map(|(name, form, _)| (name, form)).collect()
    }

    /// The same, with where it begins.
    pub fn places(&self, piece: &[u8]) -> Vec<(String, &'static str, usize)> {
        let mut found = Vec::new();
        for (at, begin) in piece.windows(2).enumerate() {
            if !self.begins[begin_of(begin)] {
                continue;
            }
            for size in [DENSE, SPARSE] {
                let window = piece.get(at..at + size);
                if let Some((n, form)) = window.and_then(|window| self.windows.get(window)) {
                    found.push((self.names[*n].clone(), *form, at));
                }
            }
        }
        found
    }
}

fn begin_of(window: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([window[0], window[1]]))
}

/// Every look of every form of `needle`, between other text.
pub fn every_look(needle: &Needle) -> Vec<(&'static str, Vec<u8>)> {
    let looks = FORMS.iter().flat_map(|(form, _, written)| {
        let looks = written(&needle.bytes).into_iter();
        looks.map(move |look| (*form, [b"{\"a\":\"", &look[..], b"\"}"].concat()))
    });
    looks.collect()
}

#[test]
fn every_form_is_found() {
    let random: [u8; 32] = std::array::from_fn(|n| (n as u8).wrapping_mul(151) ^ 0xA5);
    let of_secret = Needle::of_secret("secret", &Secret::new(random));
    let text = Needle::new("token", "a token/with + and \"quotes\"");
    for needle in of_secret.into_iter().chain([text]) {
        let search = Search::new(std::slice::from_ref(&needle));
        for (form, look) in every_look(&needle) {
            let found = search.found(&look);
            assert!(!found.is_empty(), "{}, {form}: {look:?}", needle.name);
            // Cut off behind its beginning, or before its end.
            assert!(
                !search
                    .found(&look[..6 + SPARSE.min(look.len() - 8)])
                    .is_empty(),
                "{form}"
            );
            let end = look.len() - 2 - SPARSE.min(look.len() - 8);
            assert!(!search.found(&look[end..]).is_empty(), "{form}");
        }
        // Within a longer text, at every offset, padded or not.
        for lead in 0..7 {
            let whole = [&vec![b'x'; lead], &needle.bytes[..], b"yz"].concat();
            for encoded in [
                base64::engine::general_purpose::STANDARD.encode(&whole),
                base64::engine::general_purpose::URL_SAFE.encode(&whole),
                hex::encode(&whole),
            ] {
                assert!(!search.found(encoded.as_bytes()).is_empty(), "{encoded}");
            }
        }
        assert!(search.found(&[0; 4096]).is_empty());
    }
}
