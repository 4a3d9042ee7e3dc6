//! Leaves: their alternatives and the operators among them.

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::{Read, Reader, Step, described, quoted};
use crate::domain::pattern::leaf::{Draft, Leaf, LeafDraft, shortened};
use crate::domain::pattern::number::{Bound, Num, Range};
use crate::domain::pattern::text::{Wildcard, fold};

const OPERATORS: &str =
    "prefix, suffix, equals-ignore-case, wildcard, anything-but, numeric, cidr, exists";

/// Leaves and their operators.
impl<'j> Reader<'j> {
    pub(super) fn leaf(&mut self, alternatives: &'j [Value], json: &Value) -> Read<Leaf> {
        if alternatives.is_empty() {
            return self.fault(
                "expected at least one alternative, found an empty array; nothing would match, so leave the field out or name a value",
            );
        }
        let mut draft = LeafDraft::default();
        for (at, alternative) in alternatives.iter().enumerate() {
            self.within(Step::Position(at), |reader| {
                reader.alternative(alternative, &mut draft)
            })?;
        }
        Ok(draft.seal(quoted(json)))
    }

    fn alternative(&mut self, json: &'j Value, leaf: &mut LeafDraft) -> Read<()> {
        match json {
            Value::Object(operator) => return self.operator(operator, leaf),
            Value::Array(_) => {
                return self.fault("expected a value or an operator, found an array; alternatives are not nested, list them side by side");
            }
            Value::Null => leaf.any.null = true,
            Value::Bool(truth) => leaf.any.truth[usize::from(*truth)] = true,
            Value::Number(number) => leaf.any.numbers.push(Num::of(number)),
            Value::String(text) => leaf.any.texts.push(text.as_str().into()),
        }
        self.count_alternative()
    }

    fn operator(&mut self, operator: &'j Map<String, Value>, leaf: &mut LeafDraft) -> Read<()> {
        let (name, operand) = self.single(operator, OPERATORS)?;
        self.within(Step::Key(name), |reader| {
            match name {
                "prefix" => reader.affix(operand, &mut leaf.any.prefixes, &mut leaf.any.folded_prefixes)?,
                "suffix" => reader.affix(operand, &mut leaf.any.suffixes, &mut leaf.any.folded_suffixes)?,
                "equals-ignore-case" => leaf.any.folded_texts.push(fold(reader.text(operand)?).into()),
                "wildcard" => leaf.any.wildcards.push(reader.wildcard(operand)?),
                "anything-but" => leaf.but.push(reader.anything_but(operand)?),
                "numeric" => reader.numeric(operand, &mut leaf.any)?,
                "cidr" => leaf.any.nets.push(reader.cidr(operand)?),
                "exists" => match operand {
                    Value::Bool(true) => leaf.present = true,
                    Value::Bool(false) => leaf.absent = true,
                    other => return reader.fault(format!("expected true or false, found {}", described(other))),
                },
                "exactly" => return reader.fault("`exactly` is not known; write the value itself as an alternative"),
                "$or" => return reader.fault("`$or` stands beside fields, not inside a leaf; the alternatives of a leaf are an \"or\" already"),
                _ => return reader.fault(format!("expected one of the operators {OPERATORS}, found `{}`", shortened(name))),
            }
            reader.count_alternative()
        })
    }

    fn affix(
        &self,
        operand: &Value,
        exact: &mut Vec<Box<str>>,
        folded: &mut Vec<Box<str>>,
    ) -> Read<()> {
        match operand {
            Value::String(text) => exact.push(text.as_str().into()),
            Value::Object(inner) => match (inner.len(), inner.get("equals-ignore-case")) {
                (1, Some(Value::String(text))) => folded.push(fold(text).into()),
                _ => {
                    return self.fault(format!(
                        r#"expected a string or {{"equals-ignore-case": "…"}}, found {}"#,
                        described(operand)
                    ));
                }
            },
            other => {
                return self.fault(format!(
                    r#"expected a string or {{"equals-ignore-case": "…"}}, found {}"#,
                    described(other)
                ));
            }
        }
        Ok(())
    }

    fn text<'v>(&self, operand: &'v Value) -> Read<&'v str> {
        match operand {
            Value::String(text) => Ok(text),
            other => self.fault(format!("expected a string, found {}", described(other))),
        }
    }

    fn wildcard(&mut self, operand: &Value) -> Read<Wildcard> {
        self.count_tried()?;
        match Wildcard::parse(self.text(operand)?) {
            Ok(wildcard) => Ok(wildcard),
            Err(problem) => self.fault(problem),
        }
    }

    fn cidr(&self, operand: &Value) -> Read<IpNet> {
        let text = self.text(operand)?;
        match text.parse() {
            Ok(net) => Ok(net),
            Err(_) => self.fault(format!(
                "expected a network such as 10.0.0.0/24 or 2001:db8::/32, found `{}`; a single address is /32 or /128",
                shortened(text)
            )),
        }
    }
}

/// `anything-but`: what its list or its inner operator names.
impl<'j> Reader<'j> {
    fn anything_but(&mut self, operand: &'j Value) -> Read<Draft> {
        self.count_tried()?;
        let mut named = Draft::default();
        match operand {
            Value::Object(inner) => {
                let (name, operand) =
                    self.single(inner, "prefix, suffix, equals-ignore-case, wildcard")?;
                self.within(Step::Key(name), |reader| {
                    reader.all_but(name, operand, &mut named)
                })?;
            }
            Value::Array(list) => {
                self.not_empty(list)?;
                for (at, value) in list.iter().enumerate() {
                    self.within(Step::Position(at), |reader| {
                        reader.but_value(value, &mut named)
                    })?;
                }
            }
            value => self.but_value(value, &mut named)?,
        }
        Ok(named)
    }

    fn but_value(&mut self, value: &Value, named: &mut Draft) -> Read<()> {
        match value {
            Value::String(text) => named.texts.push(text.as_str().into()),
            Value::Number(number) => named.numbers.push(Num::of(number)),
            other => {
                return self.fault(format!(
                    "expected a string, a number, a list of them, or one of prefix, suffix, equals-ignore-case, wildcard, found {}",
                    described(other)
                ));
            }
        }
        if !named.texts.is_empty() && !named.numbers.is_empty() {
            return self.fault(
                "expected only strings or only numbers, found both; a mixed list is not allowed",
            );
        }
        self.count_alternative()
    }

    fn all_but(&mut self, name: &str, operand: &'j Value, named: &mut Draft) -> Read<()> {
        match operand {
            Value::Array(list) => {
                self.not_empty(list)?;
                for (at, text) in list.iter().enumerate() {
                    self.within(Step::Position(at), |reader| {
                        reader.but_rule(name, text, named)
                    })?;
                }
                Ok(())
            }
            text => self.but_rule(name, text, named),
        }
    }

    fn but_rule(&mut self, name: &str, operand: &Value, named: &mut Draft) -> Read<()> {
        let Value::String(text) = operand else {
            return self.fault(format!(
                "expected a string or a list of strings, found {}",
                described(operand)
            ));
        };
        if text.is_empty() && matches!(name, "prefix" | "suffix") {
            return self.fault("expected a text, found an empty string; it begins and ends every string, so none would match");
        }
        match name {
            "prefix" => named.prefixes.push(text.as_str().into()),
            "suffix" => named.suffixes.push(text.as_str().into()),
            "equals-ignore-case" => named.folded_texts.push(fold(text).into()),
            "wildcard" => named.wildcards.push(self.wildcard(operand)?),
            other => {
                return self.fault(format!(
                    "expected one of prefix, suffix, equals-ignore-case, wildcard inside `anything-but`, found `{}`",
                    shortened(other)
                ));
            }
        }
        self.count_alternative()
    }

    fn not_empty(&self, list: &[Value]) -> Read<()> {
        if list.is_empty() {
            return self.fault(r#"expected at least one value, found an empty list; for any value write {"exists": true}"#);
        }
        Ok(())
    }
}

/// `numeric`.
impl<'j> Reader<'j> {
    fn numeric(&mut self, operand: &'j Value, named: &mut Draft) -> Read<()> {
        let Value::Array(terms) = operand else {
            return self.fault(format!(
                r#"expected an array such as [">=", 0, "<", 5], found {}"#,
                described(operand)
            ));
        };
        let range = match &**terms {
            [Value::String(equal), _] if equal == "=" => {
                named.numbers.push(self.number(terms, 1)?);
                return Ok(());
            }
            [_, _] => {
                let (is_low, bound) = self.bound(terms, 0)?;
                if is_low {
                    Range {
                        low: Some(bound),
                        high: None,
                    }
                } else {
                    Range {
                        low: None,
                        high: Some(bound),
                    }
                }
            }
            [_, _, _, _] => self.two_bounds(terms)?,
            _ => {
                return self.fault(format!(
                    r#"expected a comparison and a number, or two of each for a range, as in [">=", 0, "<", 5], found {} terms"#,
                    terms.len()
                ));
            }
        };
        self.count_tried()?;
        named.ranges.push(range);
        Ok(())
    }

    fn two_bounds(&mut self, terms: &'j [Value]) -> Read<Range> {
        let (first_is_low, low) = self.bound(terms, 0)?;
        let (second_is_low, high) = self.bound(terms, 2)?;
        if !first_is_low || second_is_low {
            return self.fault("expected a range from its lower end to its upper, `>` or `>=` first and then `<` or `<=`");
        }
        let range = Range {
            low: Some(low),
            high: Some(high),
        };
        if range.is_impossible() {
            return self.fault("no number lies in this range: its lower end is not below its upper; exchange them, or use \"=\"");
        }
        Ok(range)
    }

    /// The comparison at `at` with the number behind it, and whether it is a lower bound.
    fn bound(&mut self, terms: &'j [Value], at: usize) -> Read<(bool, Bound)> {
        let (is_low, inclusive) = match &terms[at] {
            Value::String(comparison) => match comparison.as_str() {
                ">" => (true, false),
                ">=" => (true, true),
                "<" => (false, false),
                "<=" => (false, true),
                "=" => {
                    return self.within(Step::Position(at), |reader| {
                        reader.fault("\"=\" stands alone: it cannot be part of a range")
                    });
                }
                other => {
                    let problem = format!(
                        "expected one of =, <, <=, >, >=, found `{}`",
                        shortened(other)
                    );
                    return self.within(Step::Position(at), |reader| reader.fault(problem));
                }
            },
            other => {
                let problem = format!(
                    "expected one of =, <, <=, >, >= as a string, found {}",
                    described(other)
                );
                return self.within(Step::Position(at), |reader| reader.fault(problem));
            }
        };
        let value = self.number(terms, at + 1)?;
        Ok((is_low, Bound { value, inclusive }))
    }

    fn number(&mut self, terms: &'j [Value], at: usize) -> Read<Num> {
        self.within(Step::Position(at), |reader| match &terms[at] {
            Value::Number(number) => Ok(Num::of(number)),
            other => reader.fault(format!("expected a number, found {}", described(other))),
        })
    }
}
