//! Stub.
#![allow(missing_docs)]
use serde_json::{Map, Value};
use std::sync::Arc;
pub struct EventView<'a> {
    pub id: &'a str,
    pub kind: &'a str,
    pub tenant: &'a str,
    pub timestamp: &'a str,
    pub data: &'a Map<String, Value>,
}
#[derive(Debug, Clone)]
pub struct Pattern;
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("filter: at `{path}`: {problem}")]
pub struct PatternError {
    pub path: String,
    pub problem: String,
}
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Selection {
    All,
    Some(Vec<usize>),
}
impl Pattern {
    pub fn compile(_: &Value) -> Result<Self, PatternError> {
        Ok(Self)
    }
    pub fn matches(&self, _: &EventView<'_>) -> bool {
        true
    }
    pub fn select_alerts(&self, _: &EventView<'_>) -> Selection {
        Selection::All
    }
}
#[derive(Debug, Clone)]
pub struct TypeGlob(String);
impl TypeGlob {
    pub fn parse(s: &str) -> Result<Self, String> {
        Ok(Self(s.into()))
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
    pub fn matches(&self, _: &str) -> bool {
        true
    }
}
#[derive(Debug)]
pub struct Matcher(Vec<u32>);
impl Matcher {
    pub fn build<'a>(
        e: impl IntoIterator<Item = (u32, &'a [TypeGlob], Option<Arc<Pattern>>)>,
    ) -> Self {
        Self(e.into_iter().map(|x| x.0).collect())
    }
    pub fn matching(&self, _: &EventView<'_>, out: &mut Vec<u32>) {
        out.extend(&self.0)
    }
}
