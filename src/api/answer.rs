//! Documents that several resources answer with.
//!
//! Types that are answered are what describes them too (`schemars`). Their members are in
//! alphabetical order, as those of documents without a type are: answers read the same way.

use schemars::JsonSchema;
use serde::Serialize;

/// A list, or a page of one.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "{T}List")]
pub struct List<T> {
    /// Those of this page.
    pub items: Vec<T>,
    /// What to ask for as `cursor` to go on: what comes or goes meanwhile moves nothing, so that
    /// no item is shown twice or passed over. Null when there is no more, and where there is
    /// one page alone.
    pub next: Option<String>,
}
