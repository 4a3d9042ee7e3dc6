//! One call of the API again and again, each for a part of what there is to do.

use indicatif::ProgressBar;
use serde_json::{Map, Value};

use super::CliError;
use super::client::{ApiClient, ApiError, Repeat};
use crate::domain::timestamp::UnixMillis;

/// Things done by one call: little is under way when it is interrupted.
pub const STEP: u64 = 1000;

/// Asks with `request`, then with the `next` of each answer as its `cursor`, to the last; `take` has
/// each answer.
///
/// # Errors
/// When the API cannot be asked, or says no.
pub async fn pages(
    client: &ApiClient,
    path: &[&str],
    mut request: Value,
    mut take: impl FnMut(Value),
) -> Result<(), ApiError> {
    loop {
        let mut answer = client.post(path, &request, Repeat::Safe).await?;
        request["cursor"] = answer["next"].take();
        take(answer);
        if request["cursor"].is_null() {
            return Ok(());
        }
    }
}

/// Has `call` do what `request` asks for, in steps, until it does fewer than a step or `limit` is
/// reached; says how many it did. What is there again meanwhile is younger than `began` and not
/// meant, or it would go round for ever. `done` is the sentence of how many, for a failure half
/// way.
///
/// # Errors
/// That of the first call; [`CliError::Failed`] of a later one.
pub async fn in_steps(
    mut request: Map<String, Value>,
    (limit, began): (Option<u64>, UnixMillis),
    progress: &ProgressBar,
    done: impl Fn(u64) -> String,
    mut call: impl AsyncFnMut(Value) -> Result<u64, ApiError>,
) -> Result<u64, CliError> {
    let mut total = 0;
    loop {
        let step = limit.map_or(STEP, |limit| STEP.min(limit - total));
        request.insert("limit".to_owned(), step.into());
        let count = match call(request.clone().into()).await {
            Ok(count) => count,
            Err(error) if total == 0 => return Err(error.into()),
            Err(error) => {
                progress.finish_and_clear();
                let done = done(total);
                return Err(CliError::Failed(format!(
                    "{done}, then: {error} The others stay; the same command goes on."
                )));
            }
        };
        total += count;
        progress.set_position(total);
        if count < step || limit.is_some_and(|limit| total >= limit) {
            progress.finish_and_clear();
            return Ok(total);
        }
        let until = || began.to_string().into();
        request.entry("until").or_insert_with(until);
    }
}
