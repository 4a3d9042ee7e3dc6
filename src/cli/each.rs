//! One call of the API for each of several things that were named.

use serde_json::{Value, json};

use super::client::ApiError;
use super::{CliError, output};

/// So many are done before a progress bar is worth it.
const FEW: usize = 10;

/// What came of the calls.
#[derive(Debug, Default)]
pub struct Outcome {
    done: Vec<String>,
    failed: Vec<(String, ApiError)>,
    /// Not tried: the one before failed in a way that all would.
    left: usize,
}

/// Calls for one id after the other. Goes on after a refusal that is about one of them, and
/// ends with a failure that would meet all others too. `unit` is what the ids are of, in the
/// plural.
pub async fn each(
    ids: &[String],
    unit: &str,
    call: impl AsyncFn(&str) -> Result<Value, ApiError>,
) -> Outcome {
    let is_long = ids.len() > FEW;
    let progress = is_long.then(|| output::progress(Some(ids.len() as u64), unit));
    let mut outcome = Outcome::default();
    for (n, id) in ids.iter().enumerate() {
        match call(id).await {
            Ok(_) => outcome.done.push(id.clone()),
            Err(error) => {
                let is_about_one = is_about_one(&error);
                outcome.failed.push((id.clone(), error));
                if !is_about_one {
                    outcome.left = ids.len() - n - 1;
                    break;
                }
            }
        }
        if let Some(progress) = &progress {
            progress.inc(1);
        }
    }
    if let Some(progress) = progress {
        progress.finish_and_clear();
    }
    outcome
}

fn is_about_one(error: &ApiError) -> bool {
    let status = error.problem().map(|problem| problem.status);
    matches!(status, Some(404 | 409 | 422))
}

impl Outcome {
    /// Says what was done, `sentence` of how many, and what failed. The document has the ids
    /// that were done as `member`, and those that failed with why.
    ///
    /// # Errors
    /// [`CliError::Reported`] when one failed.
    pub fn say(
        &self,
        as_json: bool,
        member: &str,
        sentence: impl Fn(u64) -> String,
    ) -> Result<(), CliError> {
        if as_json {
            output::json(&self.document(member))?;
        } else {
            self.complain();
            output::line(&sentence(self.done.len() as u64))?;
        }
        match self.is_complete() {
            true => Ok(()),
            false => Err(CliError::Reported),
        }
    }

    /// How many were done.
    pub fn count(&self) -> usize {
        self.done.len()
    }

    /// Whether none failed.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty()
    }

    /// Says on standard error what failed.
    pub fn complain(&self) {
        for (id, error) in &self.failed {
            output::note(&format!("{}: {error}", output::visible(id)));
        }
        if self.left > 0 {
            output::note(&format!("{} after it: not tried", self.left));
        }
    }

    /// The ids that were done as `member`, and those that failed with why.
    pub fn document(&self, member: &str) -> Value {
        let failed = |(id, error): &(String, ApiError)| {
            let code = error.problem().map(|problem| problem.code.as_str());
            json!({ "id": id, "code": code, "error": error.to_string() })
        };
        let failed: Vec<Value> = self.failed.iter().map(failed).collect();
        json!({ member: self.done, "failed": failed, "not_tried": self.left })
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::Problem;
    use super::*;

    fn refused(status: u16, code: &str) -> ApiError {
        ApiError::Refused(Box::new(Problem {
            status,
            code: code.to_owned(),
            ..Problem::default()
        }))
    }

    async fn outcome_of(ids: &[&str]) -> Outcome {
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        let call = async |id: &str| match id {
            "gone" => Err(refused(404, "not_found")),
            "cut" => Err(refused(409, "body_not_kept")),
            "down" => Err(refused(503, "store_unavailable")),
            _ => Ok(Value::Null),
        };
        each(&ids, "things", call).await
    }

    #[tokio::test]
    async fn a_refusal_of_one_is_no_reason_to_stop() {
        let outcome = outcome_of(&["a", "gone", "b", "cut"]).await;
        let document = outcome.document("sent");
        assert_eq!(document["sent"], json!(["a", "b"]));
        assert_eq!(document["failed"][0]["id"], "gone");
        assert_eq!(document["failed"][1]["code"], "body_not_kept");
        let ended = outcome.say(true, "sent", |n| n.to_string());
        assert_eq!(ended.unwrap_err().exit_code(), 1);
        let fine = outcome_of(&["a", "a"]).await;
        assert!(fine.say(false, "sent", |n| format!("{n} sent")).is_ok());
    }

    #[tokio::test]
    async fn what_fails_for_all_is_tried_once() {
        let outcome = outcome_of(&["a", "down", "b", "c"]).await;
        let document = outcome.document("sent");
        assert_eq!(document["sent"], json!(["a"]));
        assert_eq!(document["failed"].as_array().unwrap().len(), 1);
        assert_eq!(document["not_tried"], 2);
    }
}
