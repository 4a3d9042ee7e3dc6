//! JSON over several lines, for people to read.

/// How deep indents grow: what is nested on purpose must not become many times as long.
const INDENTS_MAX: usize = 16;

/// JSON text with line breaks and indents; members and numbers stay as they were written.
/// For text that is valid JSON. At most some thirty times as long as the text.
pub fn spread(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let indent = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth.min(INDENTS_MAX)));
    };
    let mut chars = json.chars().filter(|c| !c.is_control()).peekable();
    while let Some(c) = chars.next() {
        if in_string {
            out.push(c);
            in_string = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            continue;
        }
        match c {
            ' ' => {}
            '{' | '[' => {
                out.push(c);
                while chars.next_if_eq(&' ').is_some() {}
                if let Some(end) = chars.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    indent(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                indent(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                indent(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c => {
                in_string = c == '"';
                out.push(c);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_spread_and_not_rewritten() {
        let text = "{\"b\":[1.50, {}, [ ]],\n\"a\":\"x, \\\\\\\"{ y:\",\"c\":{\"d\":null}}";
        let expected = [
            "{",
            "  \"b\": [",
            "    1.50,",
            "    {},",
            "    []",
            "  ],",
            "  \"a\": \"x, \\\\\\\"{ y:\",",
            "  \"c\": {",
            "    \"d\": null",
            "  }",
            "}",
        ];
        assert_eq!(spread(text).lines().collect::<Vec<_>>(), expected);
        let nested = "[".repeat(1000) + "1,1" + &"]".repeat(1000);
        assert!(spread(&nested).len() < nested.len() * 2 * (INDENTS_MAX + 2));
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&spread(text)).unwrap(),
            value
        );
    }
}
