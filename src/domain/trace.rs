//! Where work stands in a distributed trace: the `traceparent` of W3C Trace Context, and what
//! of it a delivery takes along.
//!
//! Reads and writes version 00 and reads what is above it, as
//! <https://www.w3.org/TR/trace-context/> says (sections 3.2 and 4.3). What is not valid is
//! ignored, never an error. Does not know `tracestate`.

use std::fmt;

/// The header, and the message header, that carries a [`TraceContext`].
pub const TRACEPARENT_HEADER: &str = "traceparent";

/// The flag that says that spans of the trace are kept.
const SAMPLED: u8 = 0x01;

/// A span of a trace, as others name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; never all zero.
    pub trace_id: [u8; 16],
    /// The span; never all zero.
    pub span_id: [u8; 8],
    /// The trace's flags.
    pub flags: u8,
}

/// What of its trace a delivery takes along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// The span that its next ones are below; `None` for what came with its event.
    pub parent: Option<TraceContext>,
    /// The span of its last attempt, which the next one refers to.
    pub last_attempt: Option<TraceContext>,
}

impl TraceContext {
    /// Reads a `traceparent`; `None` when it is not valid.
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split('-');
        let [version] = hex_bytes(fields.next()?)?;
        let trace_id = hex_bytes(fields.next()?)?;
        let span_id = hex_bytes(fields.next()?)?;
        let [flags] = hex_bytes(fields.next()?)?;
        let is_known = match version {
            0x00 => fields.next().is_none(),
            // Later versions may say more behind.
            0x01..=0xfe => true,
            0xff => false,
        };
        let is_valid = is_known && trace_id != [0; 16] && span_id != [0; 8];
        is_valid.then_some(Self {
            trace_id,
            span_id,
            flags,
        })
    }

    /// Whether spans of the trace are kept.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The trace, in hexadecimal.
    pub fn trace_hex(&self) -> Hex<'_> {
        Hex(&self.trace_id)
    }

    /// The span, in hexadecimal.
    pub fn span_hex(&self) -> Hex<'_> {
        Hex(&self.span_id)
    }
}

impl fmt::Display for TraceContext {
    /// The `traceparent` of version 00.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (self.trace_hex(), self.span_hex());
        write!(f, "00-{trace}-{span}-{:02x}", self.flags)
    }
}

/// Bytes in hexadecimal, in lower case.
#[derive(Clone, Copy, Debug)]
pub struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The bytes that `text` writes in lower-case hexadecimal, all of it.
fn hex_bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in pair {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            *byte = *byte << 4 | value;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_example_of_the_specification_is_read_and_written() {
        let context = TraceContext::parse(VALID).unwrap();
        assert_eq!(context.trace_id[..3], [0x4b, 0xf9, 0x2f]);
        assert_eq!(context.span_id[6..], [0x02, 0xb7]);
        assert!(context.is_sampled());
        assert_eq!(context.to_string(), VALID);
        let unsampled = TraceContext::parse(&VALID.replace("-01", "-00")).unwrap();
        assert!(!unsampled.is_sampled());
        assert_eq!(unsampled.trace_hex().to_string(), VALID[3..35]);
        assert_eq!(unsampled.span_hex().to_string(), VALID[36..52]);
    }

    #[test]
    fn flags_that_are_not_known_do_not_sample_and_later_versions_may_say_more() {
        let context = |text: String| TraceContext::parse(&text).unwrap();
        assert!(!context(VALID.replace("-01", "-fe")).is_sampled());
        assert!(context(VALID.replace("-01", "-ff")).is_sampled());
        for later in ["cc", "01", "fe"] {
            let later = VALID.replacen("00", later, 1);
            assert_eq!(context(later.clone()), context(VALID.to_owned()));
            assert_eq!(context(later + "-what-comes"), context(VALID.to_owned()));
        }
    }

    #[test]
    fn what_is_not_valid_is_ignored() {
        let zero_trace = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        let zero_span = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", "0".repeat(16));
        for text in [
            "",
            "-",
            "00-1-2-01",
            "00",
            &VALID[..52],
            &VALID[..54],
            &VALID[1..],
            &VALID.to_uppercase(),
            &VALID.replacen("00", "ff", 1),
            &format!("{VALID}-"),
            &format!("{VALID}-00"),
            &format!("{VALID}0"),
            &format!(" {VALID}"),
            &VALID.replacen("00-", "01-", 1).replace("-01", "-01x"),
            &VALID.replace('-', "_"),
            &VALID.replace("4b", "+b"),
            &zero_trace,
            &zero_span,
        ] {
            assert_eq!(TraceContext::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(trace_id: [u8; 16], span_id: [u8; 8], flags: u8) {
            let context = TraceContext { trace_id, span_id, flags };
            let read = TraceContext::parse(&context.to_string());
            let is_valid = trace_id != [0; 16] && span_id != [0; 8];
            prop_assert_eq!(read, is_valid.then_some(context));
        }

        #[test]
        fn any_text_is_read_or_ignored(text in "\\PC{0,60}") {
            let _ = TraceContext::parse(&text);
        }
    }
}
