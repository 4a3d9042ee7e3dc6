//! What applying a file would do, before it is done.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::{Value, json};

use super::super::client::{ApiClient, ApiError, Repeat};
use super::super::output::{Look, Tone, text_of};
use super::super::{CliError, output};
use super::apply::{Args, parts, refusal};

/// Longest value that a line shows, in characters.
const VALUE_CHARS_MAX: usize = 60;
/// Up to so many of a tenant are looked up one by one.
const LOOKUPS_MAX: usize = 20;

/// What would be done.
pub struct Plan {
    /// What the API says of each item, in the order of the file.
    pub items: Vec<Value>,
    /// The subscriptions that go.
    pub deleted: Vec<Value>,
    /// The store has lost what it held: nobody knows what there is to delete.
    pub store_lost: bool,
    /// Those that are there, by their ids, as far as they were asked for.
    there: HashMap<String, Value>,
}

/// How many of what.
struct Counts {
    created: usize,
    updated: usize,
    unchanged: usize,
}

/// The tenants of which every subscription that the file does not name goes; none without
/// `--prune`.
///
/// # Errors
/// [`CliError::Usage`] where it could not be told which ones the file names.
pub fn pruned(args: &Args, items: &[Value]) -> Result<BTreeSet<String>, CliError> {
    if !args.prune {
        return Ok(BTreeSet::new());
    }
    let usage = |text: String| Err(CliError::Usage(text));
    if items.is_empty() {
        let text = "--prune: the file has no subscriptions, so all would be deleted; for that there \
                    is `carillon subscriptions delete`. Nothing was changed.";
        return usage(text.to_owned());
    }
    if let Some(n) = items.iter().position(|item| !item["id"].is_string()) {
        let url = text_of(&items[n], "url");
        return usage(format!(
            "--prune needs an `id` on every subscription, or it could not be told which ones the \
             file names: number {} ({url}) has none. `carillon subscriptions list` shows them. \
             Nothing was changed.",
            n + 1
        ));
    }
    let named: BTreeSet<String> = match args.tenants.is_empty() {
        true => items.iter().map(|item| text_of(item, "tenant")).collect(),
        false => args.tenants.iter().cloned().collect(),
    };
    if named.iter().any(String::is_empty) {
        return usage("--prune: a tenant has no name. Nothing was changed.".to_owned());
    }
    Ok(named)
}

impl Plan {
    /// Asks the API what `items` would change, and which subscriptions of `pruned` they do not
    /// name. `with_old`: also how those are now that would be updated.
    ///
    /// # Errors
    /// When the API cannot be asked, or refuses an item.
    pub async fn make(
        client: &ApiClient,
        items: &[Value],
        pruned: &BTreeSet<String>,
        with_old: bool,
    ) -> Result<Self, CliError> {
        let mut plan = Self {
            items: planned(client, items).await?,
            deleted: Vec::new(),
            there: HashMap::new(),
            store_lost: false,
        };
        let named: HashSet<String> = items.iter().map(|item| text_of(item, "id")).collect();
        for tenant in pruned {
            match of_tenant(client, tenant).await {
                Ok(found) => {
                    // Whatever the API lists: another tenant's is not meant.
                    let found = found.into_iter();
                    let found = found.filter(|one| text_of(one, "tenant") == *tenant);
                    let (kept, gone): (Vec<_>, Vec<_>) =
                        found.partition(|one| named.contains(&text_of(one, "id")));
                    plan.deleted.extend(gone);
                    plan.add(kept);
                }
                Err(error) if error.is("store_lost") => {
                    plan.store_lost = true;
                    // What was listed before it was lost is not there any more either.
                    plan.deleted.clear();
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if with_old && !plan.store_lost {
            plan.look_up(client, items).await?;
        }
        Ok(plan)
    }

    /// Looks up those that would be updated, as far as they are not known yet: a few of a tenant
    /// one by one, many by its list.
    async fn look_up(&mut self, client: &ApiClient, items: &[Value]) -> Result<(), ApiError> {
        let mut wanted: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (item, one) in items.iter().zip(&self.items) {
            let id = text_of(one, "id");
            if one["action"] == "updated" && !self.there.contains_key(&id) {
                wanted.entry(text_of(item, "tenant")).or_default().push(id);
            }
        }
        for (tenant, ids) in wanted {
            if ids.len() > LOOKUPS_MAX {
                let ids: HashSet<String> = ids.into_iter().collect();
                let mut found = of_tenant(client, &tenant).await?;
                found.retain(|one| ids.contains(&text_of(one, "id")));
                self.add(found);
                continue;
            }
            for id in ids {
                match client.get(&["subscriptions", &id], &[]).await {
                    Ok(found) => self.add([found]),
                    // It went meanwhile.
                    Err(error) if error.is("not_found") => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, found: impl IntoIterator<Item = Value>) {
        let found = found.into_iter().map(|one| (text_of(&one, "id"), one));
        self.there.extend(found);
    }

    /// Prints it: what is created, updated with its fields, and deleted, then how many of each.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn print(&self, items: &[Value]) -> Result<(), CliError> {
        let look = Look::detect();
        let mut text = String::new();
        let mut line = |tone, line: String| {
            text.push_str(&look.paint(tone, &line));
            text.push('\n');
        };
        for (item, one) in items.iter().zip(&self.items) {
            match one["action"].as_str() {
                Some("created") => line(Tone::Good, named('+', item)),
                Some("updated") => {
                    line(Tone::Notable, named('~', item));
                    for change in self.changes(item, one) {
                        line(Tone::Notable, format!("    {change}"));
                    }
                }
                _ => {}
            }
        }
        for one in &self.deleted {
            line(Tone::Bad, named('-', one));
        }
        let Counts {
            created,
            updated,
            unchanged,
        } = self.counts();
        let deleted = self.deleted.len();
        if !text.is_empty() {
            text.push('\n');
        }
        output::write(text.as_bytes())?;
        output::line(&format!(
            "Plan: {created} to create, {updated} to update, {deleted} to delete, {unchanged} unchanged"
        ))
    }

    /// It as a document.
    pub fn document(&self) -> Value {
        let counts = self.counts();
        let gone =
            |one: &Value| json!({ "id": one["id"], "tenant": one["tenant"], "url": one["url"] });
        json!({
            "created": counts.created,
            "updated": counts.updated,
            "unchanged": counts.unchanged,
            "items": self.items,
            "deleted": self.deleted.iter().map(gone).collect::<Vec<_>>(),
            "store_lost": self.store_lost,
        })
    }

    fn counts(&self) -> Counts {
        let count = |action: &str| {
            let of = self.items.iter().filter(|one| one["action"] == action);
            of.count()
        };
        Counts {
            created: count("created"),
            updated: count("updated"),
            unchanged: count("unchanged"),
        }
    }

    /// `field: old → new` for each field that changes.
    fn changes(&self, item: &Value, one: &Value) -> Vec<String> {
        let old = self.there.get(&text_of(item, "id")).unwrap_or(&Value::Null);
        let names = one["changes"].as_array().map_or(&[][..], Vec::as_slice);
        let change = |name: &Value| match name.as_str().unwrap_or_default() {
            "secret" => "secret: another one".to_owned(),
            "headers" => format!("headers: {}", headers(&old["headers"], &item["headers"])),
            name => {
                let new = match &item[name] {
                    Value::Null => "the default".to_owned(),
                    value => short(value),
                };
                format!("{name}: {} → {new}", short(&old[name]))
            }
        };
        names.iter().map(change).collect()
    }
}

/// How headers differ: by their names alone, as the values may be secret.
fn headers(old: &Value, new: &Value) -> String {
    let by_name = |headers: &Value| -> BTreeMap<String, Value> {
        let headers = headers.as_object().into_iter().flatten();
        let lower = |name: &str| output::visible(&name.to_ascii_lowercase());
        headers
            .map(|(name, value)| (lower(name), value.clone()))
            .collect()
    };
    let (old, new) = (by_name(old), by_name(new));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differs = |name: &&String| old.get(*name) != new.get(*name);
    let told = names.into_iter().filter(differs).map(|name| {
        let how = match (old.get(name), new.get(name)) {
            (None, _) => "new",
            (_, None) => "taken away",
            _ => "another value",
        };
        format!("{name} ({how})")
    });
    told.collect::<Vec<_>>().join(", ")
}

/// What the API says of each item, in their order.
async fn planned(client: &ApiClient, items: &[Value]) -> Result<Vec<Value>, CliError> {
    let mut planned = Vec::with_capacity(items.len());
    for part in parts(items) {
        let body = Value::from(&items[part.clone()]);
        let query = [("dry_run", Some("true".to_owned()))];
        let answer = client.put(&["subscriptions"], &query, &body, Repeat::Safe);
        let answer = answer.await.map_err(|error| {
            CliError::Failed(format!(
                "{} Nothing was changed.",
                refusal(items, &part, &error)
            ))
        })?;
        match (&answer["items"], &answer["dry_run"]) {
            (Value::Array(found), Value::Bool(true)) => planned.extend(found.iter().cloned()),
            _ => {
                let text = "the API does not tell a plan: it is of an older Carillon, and may \
                            have applied the file";
                return Err(CliError::Failed(text.to_owned()));
            }
        }
    }
    Ok(planned)
}

async fn of_tenant(client: &ApiClient, tenant: &str) -> Result<Vec<Value>, ApiError> {
    let query = [("tenant", Some(tenant.to_owned()))];
    let mut page = client.list(&["subscriptions"], &query, None).await?;
    match page["items"].take() {
        Value::Array(found) => Ok(found),
        _ => Ok(Vec::new()),
    }
}

/// A value in one line that is not too long.
fn short(value: &Value) -> String {
    let text = output::visible(&value.to_string());
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

fn named(sign: char, item: &Value) -> String {
    let id = match text_of(item, "id") {
        id if id.is_empty() => "(a new id)".to_owned(),
        id => id,
    };
    let (tenant, url) = (text_of(item, "tenant"), text_of(item, "url"));
    format!("{sign} {id}  {tenant}  {url}")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn args(prune: bool, tenants: &[&str]) -> Args {
        Args {
            file: PathBuf::from("-"),
            dry_run: false,
            prune,
            tenants: tenants.iter().map(|tenant| (*tenant).to_owned()).collect(),
            yes: false,
        }
    }

    #[test]
    fn what_is_pruned_is_named_by_the_file_or_by_hand() {
        let items = [
            json!({"id": "sub_1", "tenant": "a"}),
            json!({"id": "sub_2", "tenant": "b"}),
        ];
        let named = |prune, tenants: &[&str], items: &[Value]| {
            let found = pruned(&args(prune, tenants), items);
            found.map(|names| names.into_iter().collect::<Vec<_>>().join(","))
        };
        assert_eq!(named(false, &[], &items).unwrap(), "");
        assert_eq!(named(true, &[], &items).unwrap(), "a,b");
        assert_eq!(named(true, &["b"], &items).unwrap(), "b");
        assert_eq!(named(true, &["c"], &items).unwrap(), "c");
        let nameless = [items[0].clone(), json!({"tenant": "a", "url": "http://x"})];
        for (tenants, items, part) in [
            (&[][..], &nameless[..], "number 2 (http://x)"),
            (&[], &[], "no subscriptions"),
            (&["acme"], &[], "no subscriptions"),
            (&[""], &items, "no name"),
            (&["acme", ""], &items, "no name"),
        ] {
            let error = named(true, tenants, items).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn a_change_tells_old_and_new_and_no_secret() {
        let old = json!({
            "id": "sub_1", "timeout_ms": 500, "description": "a\u{1b}[2J",
            "headers": {"x-same": "1", "x-token": "hunter1", "x-old": "hunter2"},
        });
        let plan = Plan {
            items: Vec::new(),
            deleted: Vec::new(),
            store_lost: false,
            there: HashMap::from([("sub_1".to_owned(), old)]),
        };
        let new = json!({
            "id": "sub_1", "description": "x".repeat(80), "secret": "whsec_hunter2",
            "headers": {"X-Same": "1", "X-Token": "hunter3", "x-new": "hunter4"},
        });
        let one = json!({"changes": ["description", "timeout_ms", "secret", "headers"]});
        let changes = plan.changes(&new, &one);
        assert_eq!(changes.len(), 4);
        assert!(
            changes[0].ends_with('…') && !changes[0].contains('\u{1b}'),
            "{changes:?}"
        );
        assert_eq!(changes[1], "timeout_ms: 500 → the default");
        assert_eq!(changes[2], "secret: another one");
        let expected = "headers: x-new (new), x-old (taken away), x-token (another value)";
        assert_eq!(changes[3], expected);
    }
}
