//! What a page is asked for: the fields of its search form, as they stand in its address.

use super::super::extract::Query;
use super::calls::with_query;
use super::page::Form;

/// Names and values, empty where nothing is asked for.
pub struct Asked(Vec<(&'static str, String)>);

impl Asked {
    /// The fields `names` of an address.
    pub fn of_query(query: &Query, names: &[&'static str]) -> Self {
        Self::read(names, |name| query.text(name).unwrap_or_default())
    }

    /// The same fields where a form sends them along.
    pub fn of_form(form: &Form, names: &[&'static str]) -> Self {
        Self::read(names, |name| form.text(name))
    }

    fn read<'a>(names: &[&'static str], text: impl Fn(&str) -> &'a str) -> Self {
        let read = |name: &&'static str| (*name, text(name).trim().to_owned());
        Self(names.iter().map(read).collect())
    }

    /// What is asked for there.
    pub fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map_or("", |(_, value)| value)
    }

    /// All of them, with `more`.
    pub fn with<'a>(&'a self, more: &[(&'static str, &'a str)]) -> Vec<(&'static str, &'a str)> {
        let own = self.0.iter().map(|(name, value)| (*name, value.as_str()));
        own.chain(more.iter().copied()).collect()
    }

    /// Those where something is asked for.
    pub fn given(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let own = self.0.iter().map(|(name, value)| (*name, value.as_str()));
        own.filter(|(_, value)| !value.is_empty())
    }

    /// Whether anything is.
    pub fn is_any(&self) -> bool {
        self.given().next().is_some()
    }

    /// The address of a page that is asked for this, from `cursor` on.
    pub fn at(&self, page: &str, cursor: &str) -> String {
        with_query(page, &self.with(&[("cursor", cursor)]))
    }
}
