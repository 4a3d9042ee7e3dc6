//! A captured request, as text that someone saved: headers, a blank line, the body.

/// A captured request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// Names in lower case, in their order.
    pub headers: Vec<(String, String)>,
    /// The bytes after the blank line, as they are.
    pub body: Vec<u8>,
}

impl Captured {
    /// Reads a raw HTTP request; the request line may be missing. Lines end with CRLF or
    /// LF.
    ///
    /// # Errors
    /// A sentence on what was expected, with the line.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut headers = Vec::new();
        let mut rest = bytes;
        for number in 1.. {
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                let expected = "a blank line between headers and body";
                return Err(format!("line {number}: expected {expected}, found the end"));
            };
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            rest = after;
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                break;
            }
            let line = std::str::from_utf8(line)
                .map_err(|_| format!("line {number}: a header must be text"))?;
            if number == 1 && is_request_line(line) {
                continue;
            }
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| format!("line {number}: expected `Name: value`, found `{line}`"))?;
            headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
        if headers.is_empty() {
            return Err("there are no headers before the first blank line".to_owned());
        }
        let body = rest.to_vec();
        Ok(Self { headers, body })
    }

    /// The value of the first header with this name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name)?;
        Some(&found.1)
    }
}

/// `POST /hook HTTP/1.1`; the version may be missing.
fn is_request_line(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    let method = words.next().unwrap_or_default();
    let upper = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
    upper && words.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_and_the_request_line_do_not_matter() {
        let texts = [
            "POST /hook HTTP/1.1\r\nHost: a:1\r\nWebhook-Id:  msg_1 \r\n\r\n{\"a\":\r\n1}\n",
            "POST /hook HTTP/1.1\nHost: a:1\nWebhook-Id: msg_1\n\n{\"a\":\r\n1}\n",
            "host: a:1\nwebhook-id: msg_1\n\n{\"a\":\r\n1}\n",
        ];
        for text in texts {
            let read = Captured::parse(text.as_bytes()).unwrap();
            assert_eq!(read.header("webhook-id"), Some("msg_1"), "{text}");
            assert_eq!(read.header("host"), Some("a:1"), "{text}");
            assert_eq!(read.body, b"{\"a\":\r\n1}\n", "{text}");
        }
    }

    #[test]
    fn a_body_may_be_empty_or_binary() {
        assert_eq!(Captured::parse(b"a: b\n\n").unwrap().body, b"");
        assert_eq!(Captured::parse(b"a: b\n\n\n\xff").unwrap().body, b"\n\xff");
    }

    #[test]
    fn what_is_no_request_is_explained() {
        let cases: [(&[u8], &str); 5] = [
            (b"", "blank line"),
            (b"a: b\n{}", "blank line"),
            (b"a: b\nnonsense\n\n", "line 2"),
            (b"\n{}", "no headers"),
            (b"a: \xff\n\n", "line 1"),
        ];
        for (bytes, expected) in cases {
            let error = Captured::parse(bytes).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
