//! What a handler's file says of one thing that can be asked.

use http::StatusCode;
use serde_json::{Value, json};

use super::super::problem::Code;

/// The named schemas of the document, to which operations add.
pub use schemars::SchemaGenerator as Schemas;

/// What describes a route; the table has one for each.
pub type Describe = fn(&mut Schemas) -> Operation;

/// One thing that can be asked: what it takes, what it answers, what it may refuse.
#[derive(Clone, Debug)]
pub struct Operation {
    pub(super) id: &'static str,
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    pub(super) description: String,
    pub(super) parameters: Vec<Value>,
    pub(super) body: Option<Value>,
    pub(super) answers: Vec<(StatusCode, Value)>,
    pub(super) codes: Vec<Code>,
}

impl Operation {
    /// One of `tag`, with a name for programs and a title.
    pub fn new(tag: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self {
            id,
            tag,
            summary,
            description: summary.to_owned() + ".",
            parameters: Vec::new(),
            body: None,
            answers: Vec::new(),
            codes: Vec::new(),
        }
    }

    /// What else there is to know of it.
    #[must_use]
    pub fn about(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// What its path names; what is not there is answered 404.
    #[must_use]
    pub fn of(self, name: &str, about: &str, schema: Value, example: &str) -> Self {
        let mut parameter = parameter("path", name, about, schema);
        parameter["required"] = true.into();
        parameter["example"] = example.into();
        self.with(parameter).refuses(&[Code::NotFound])
    }

    /// A parameter of its query; empty, it is as if it were not there.
    #[must_use]
    pub fn query(self, name: &str, about: &str, schema: Value) -> Self {
        let mut parameter = parameter("query", name, about, schema);
        parameter["allowEmptyValue"] = true.into();
        self.with(parameter)
    }

    /// A parameter of its query that is `true` or `false`, and never empty.
    #[must_use]
    pub fn flag(self, name: &str, about: &str) -> Self {
        let schema = json!({ "type": "boolean", "default": false });
        self.with(parameter("query", name, about, schema))
    }

    /// A header that it goes by.
    #[must_use]
    pub fn header(self, name: &str, about: &str, schema: Value) -> Self {
        self.with(parameter("header", name, about, schema))
    }

    /// Its body, a JSON document.
    #[must_use]
    pub fn takes(self, schema: Value, required: bool, examples: &[(&str, Value)]) -> Self {
        let content = json!({ "application/json": content(schema, examples) });
        self.takes_one_of(required, content)
            .refuses(&[Code::Malformed, Code::InvalidField])
    }

    /// Its body, in one of several forms, each with its content type.
    #[must_use]
    pub fn takes_one_of(mut self, required: bool, content: Value) -> Self {
        let mut body = json!({ "required": required });
        body["content"] = content;
        self.body = Some(body);
        self.refuses(&[
            Code::IncompleteBody,
            Code::SlowBody,
            Code::TooLarge,
            Code::UnsupportedContentType,
        ])
    }

    /// What it answers with `status`, and an example of it.
    #[must_use]
    pub fn answers(self, status: u16, about: &str, schema: Value, example: Value) -> Self {
        let mut answer = json!({ "description": about });
        let content = &mut answer["content"]["application/json"];
        content["schema"] = schema;
        content["example"] = example;
        self.answer(status, answer)
    }

    /// That it answers `status` with no document.
    #[must_use]
    pub fn answers_nothing(self, status: u16, about: &str) -> Self {
        self.answer(status, json!({ "description": about }))
    }

    /// A header of the answer that was named last.
    #[must_use]
    pub fn answers_header(mut self, name: &str, about: &str, example: &str) -> Self {
        if let Some((_, answer)) = self.answers.last_mut() {
            answer["headers"][name] = json!({
                "description": about,
                "required": true,
                "schema": { "type": "string" },
                "example": example,
            });
        }
        self
    }

    /// What it may refuse, on top of what follows from what it takes.
    #[must_use]
    pub fn refuses(mut self, codes: &[Code]) -> Self {
        for code in codes {
            if !self.codes.contains(code) {
                self.codes.push(*code);
            }
        }
        self
    }

    /// The names of the parameters of its query: no others are taken.
    pub fn query_names(&self) -> impl Iterator<Item = String> {
        let of_query = self
            .parameters
            .iter()
            .filter(|parameter| parameter["in"] == "query");
        of_query.filter_map(|parameter| Some(parameter["name"].as_str()?.to_owned()))
    }

    fn with(mut self, parameter: Value) -> Self {
        self.parameters.push(parameter);
        self
    }

    fn answer(mut self, status: u16, answer: Value) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        self.answers.push((status, answer));
        self
    }
}

/// A schema with examples, each under its name.
pub fn content(schema: Value, examples: &[(&str, Value)]) -> Value {
    let named = examples.iter().map(|(name, example)| {
        let example = json!({ "summary": name, "value": example });
        (name.replace(' ', "-"), example)
    });
    let named: serde_json::Map<_, _> = named.collect();
    let mut content = json!({ "examples": named });
    content["schema"] = schema;
    content
}

fn parameter(place: &str, name: &str, about: &str, schema: Value) -> Value {
    let mut parameter = json!({ "in": place, "name": name, "description": about });
    parameter["schema"] = schema;
    parameter
}
