//! How settings are declared: the `sections!` macro, and what it needs of each type.

use std::ops::RangeInclusive;

use toml::Value;

/// A type that a setting may have.
pub(super) trait Kind: Clone {
    /// Whether plain text is meant even where it reads as another TOML value.
    const TEXT: bool = false;

    /// What a value looks like: "a duration such as …".
    fn form() -> String;

    /// Reads a TOML value.
    fn read(value: &Value) -> Result<Self, Problem>;

    /// Replaces what is set; a table may replace a part of it.
    fn update(&mut self, value: &Value) -> Result<(), Problem> {
        *self = Self::read(value)?;
        Ok(())
    }

    /// The value as TOML, secrets redacted; `None` when unset.
    fn show(&self) -> Option<String>;
}

impl<T: Kind> Kind for Option<T> {
    const TEXT: bool = T::TEXT;

    fn form() -> String {
        T::form()
    }

    fn read(value: &Value) -> Result<Self, Problem> {
        T::read(value).map(Some)
    }

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(T::show)
    }
}

/// What more than its type a setting must satisfy.
pub(super) trait Rule<T> {
    /// The rule, to follow "must be" and the form.
    fn text(&self) -> String;

    /// Whether `value` satisfies it.
    fn holds(&self, value: &T) -> bool;
}

impl<T: Kind + PartialOrd> Rule<T> for RangeInclusive<T> {
    fn text(&self) -> String {
        format!("{} to {}", bare(self.start()), bare(self.end()))
    }

    fn holds(&self, value: &T) -> bool {
        self.contains(value)
    }
}

/// What is wrong with a value; `below` is where in it, such as `[2]` or `.burst`.
#[derive(Debug)]
pub(super) struct Problem {
    pub below: String,
    pub text: String,
}

impl Problem {
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            below: String::new(),
            text: text.into(),
        }
    }

    pub fn below(mut self, place: &str) -> Self {
        self.below.insert_str(0, place);
        self
    }
}

/// A value as it came.
#[derive(Clone, Debug)]
pub(super) enum Given {
    /// From a file.
    Toml(Value),
    /// From the environment: a TOML value, or plain text.
    Text(String),
}

impl Given {
    /// As TOML; `text` tells that the setting is text.
    pub fn value(&self, text: bool) -> Value {
        match self {
            Self::Toml(value) => value.clone(),
            Self::Text(plain) => match plain.trim().parse() {
                Ok(Value::String(quoted)) => Value::String(quoted),
                Ok(value) if !text => value,
                _ => Value::String(plain.trim().to_owned()),
            },
        }
    }
}

/// One setting of a section: its documentation and its value.
pub(super) struct Setting {
    pub key: &'static str,
    pub doc: String,
    /// What a value looks like, and its range.
    pub form: String,
    /// The value as TOML, secrets redacted; `None` when unset.
    pub value: Option<String>,
}

/// A table of the configuration file.
pub(super) trait Section {
    fn name(&self) -> &'static str;
    fn doc(&self) -> String;
    /// Every setting, in the order of declaration.
    fn settings(&self) -> Vec<Setting>;
    /// Sets `key`; `None` when there is no such key.
    fn set(&mut self, key: &str, given: &Given) -> Option<Result<(), Problem>>;
}

/// Declares the whole configuration, one section after the other:
///
/// ```text
/// /// Documentation of the section.
/// name: Struct {
///     /// Documentation of the key.
///     key: Type [rule, if any] = default,
/// }
/// ```
///
/// Makes `Config`, one struct for each section with its `Default`, and what reading,
/// printing and the reference page need ([`Section`]). A key's type is a [`Kind`], its
/// rule a [`Rule`], mostly a range.
macro_rules! sections {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $Section:ident {$(
            $(#[doc = $doc:literal])+
            $key:ident: $Type:ty $([$rule:expr])? = $default:expr,
        )+}
    )+) => {
        /// The whole configuration; its default is what an empty file and environment give.
        #[derive(Clone, Debug, Default)]
        pub struct Config {$(
            $(#[doc = $section_doc])+
            pub $section: $Section,
        )+}

        impl Config {
            pub(super) fn sections(&self) -> Vec<&dyn Section> {
                vec![$(&self.$section),+]
            }

            pub(super) fn sections_mut(&mut self) -> Vec<&mut dyn Section> {
                vec![$(&mut self.$section),+]
            }
        }

        $(
            $(#[doc = $section_doc])+
            #[derive(Clone, Debug)]
            pub struct $Section {$(
                $(#[doc = $doc])+
                pub $key: $Type,
            )+}

            impl Default for $Section {
                fn default() -> Self {
                    Self { $($key: $default),+ }
                }
            }

            impl Section for $Section {
                fn name(&self) -> &'static str {
                    stringify!($section)
                }

                fn doc(&self) -> String {
                    schema::joined(&[$($section_doc),+])
                }

                fn settings(&self) -> Vec<Setting> {
                    vec![$(Setting {
                        key: stringify!($key),
                        doc: schema::joined(&[$($doc),+]),
                        form: schema::form::<$Type>(&[$(&$rule)?]),
                        value: self.$key.show(),
                    }),+]
                }

                fn set(&mut self, key: &str, given: &Given) -> Option<Result<(), Problem>> {
                    match key {
                        $(stringify!($key) => {
                            Some(schema::assign(&mut self.$key, given, &[$(&$rule)?]))
                        })+
                        _ => None,
                    }
                }
            }
        )+
    };
}
pub(super) use sections;

/// The lines of a doc comment as one.
pub(super) fn joined(lines: &[&str]) -> String {
    let trimmed: Vec<_> = lines.iter().map(|line| line.trim()).collect();
    trimmed.join(" ")
}

/// What a setting looks like, with its rule.
pub(super) fn form<T: Kind>(rules: &[&dyn Rule<T>]) -> String {
    let mut parts = vec![T::form()];
    parts.extend(rules.iter().map(|rule| rule.text()));
    parts.join(", ")
}

/// Sets `target` to what was given, unless the type or a rule says no.
pub(super) fn assign<T: Kind>(
    target: &mut T,
    given: &Given,
    rules: &[&dyn Rule<T>],
) -> Result<(), Problem> {
    let mut new = target.clone();
    new.update(&given.value(T::TEXT))?;
    for rule in rules {
        if !rule.holds(&new) {
            let (rule, found) = (rule.text(), bare(&new));
            return Err(Problem::new(format!("must be {rule}, found {found}")));
        }
    }
    *target = new;
    Ok(())
}

/// The environment variable of a key.
pub(super) fn variable(section: &str, key: &str) -> String {
    format!("CARILLON_{section}__{key}").to_uppercase()
}

fn bare<T: Kind>(value: &T) -> String {
    let shown = value.show().unwrap_or_default();
    shown.trim_matches('"').to_owned()
}
