//! The configuration as text: the effective one as TOML, and the reference page.

use std::fmt::Write as _;

use super::schema::{Setting, variable};
use super::sections::Config;

const INTRODUCTION: &str = "\
# Configuration

<!-- Made by `carillon config reference > docs/configuration.md`; edit src/config/sections.rs. -->

Carillon reads `carillon.toml` in its working directory if there is one, or the file named by
`--config FILE`. Environment variables win over the file.

```toml
[http]
listen = \"0.0.0.0:8080\"
admin_token = \"a long random text\"

[delivery]
timeout = \"10s\"
rate_limit = { per_second = 20, burst = 40 }
```

- **Variables** are named `CARILLON_<SECTION>__<KEY>`, with two underscores, and written as TOML
  values: `CARILLON_EGRESS__ALLOW='[\"10.0.0.0/8\"]'`, `CARILLON_DELIVERY__MAX_IN_FLIGHT=512`. Text
  needs no quotes: `CARILLON_DELIVERY__TIMEOUT=5s`.
- **Durations** are whole numbers with a unit (`ms`, `s`, `m`, `h`, `d`) and sums of them: `\"250ms\"`,
  `\"10s\"`, `\"1h30m\"`, `\"7d\"`.
- **Unknown keys** are errors that name the nearest known key.
- **RabbitMQ and Redis, or embedded**: with `broker.url` and `redis.url` Carillon runs on RabbitMQ and
  Redis; with neither it runs embedded, in one process with one SQLite file. One without the other
  is an error.

`carillon config check` names everything that is wrong, with the line or variable it came from;
`carillon config print` shows the effective configuration without secrets.
";

/// The effective configuration as JSON; what is not set is not in it. Secrets are redacted as in
/// [`print()`].
pub fn print_json(config: &Config) -> serde_json::Value {
    // What is printed reads as TOML, by a test.
    toml::from_str(&print(config)).unwrap_or_default()
}

/// The effective configuration as TOML. Secrets are redacted as `…`, which is refused
/// when it is read again; all else reads as it was.
pub fn print(config: &Config) -> String {
    let mut page = String::new();
    for section in config.sections() {
        let gap = if page.is_empty() { "" } else { "\n" };
        page += &format!("{gap}[{}]\n", section.name());
        for Setting { key, value, .. } in section.settings() {
            page += &match value {
                Some(value) => format!("{key} = {value}\n"),
                None => format!("# {key} is not set\n"),
            };
        }
    }
    page
}

/// `docs/configuration.md`: every key with its variable, default and meaning. Ends with
/// a line break.
pub fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    for section in Config::default().sections() {
        let name = section.name();
        let doc = section.doc();
        // Writing to a string does not fail.
        let _ = write!(page, "\n## `[{name}]`\n\n{doc}\n");
        for setting in section.settings() {
            page += &entry(name, &setting);
        }
    }
    page
}

fn entry(section: &str, setting: &Setting) -> String {
    let Setting {
        key,
        doc,
        form,
        value,
    } = setting;
    let default = match value {
        Some(value) => format!("`{value}`"),
        None => "unset".to_owned(),
    };
    let variable = variable(section, key);
    format!(
        "\n### `{section}.{key}`\n\n{doc}\n\n- Value: {form}\n- Default: {default}\n- Variable: `{variable}`\n"
    )
}
