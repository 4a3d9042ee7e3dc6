//! `carillon doctor`: its arguments, and how its findings are shown. The composition root looks.

use std::time::Duration;

use comfy_table::Cell;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::output::{Look, Tone};
use super::{CliError, output};

/// Can it reach what it needs, and is it set up safely; `Command` has the rest of its help
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  carillon doctor
  carillon doctor --config /etc/carillon.toml --strict
  carillon doctor --json | jq '.checks[] | select(.verdict != \"ok\")'

Exit code 0 when no check failed, 1 when one did; with --strict, warnings count as failures.")]
pub struct Args {
    /// Exit code 1 for warnings too
    #[arg(long)]
    pub strict: bool,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is as it should be.
    Ok,
    /// It works, and should be looked at.
    Warning,
    /// It does not work.
    Failed,
    /// There was nothing to look at.
    Skipped,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What.
    pub name: String,
    /// What came of it.
    pub verdict: Verdict,
    /// What was found. Without secrets.
    pub detail: String,
    /// What to do about it.
    pub advice: Option<String>,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Self::Ok => "✓",
            Self::Warning => "!",
            Self::Failed => "✗",
            Self::Skipped => "–",
        }
    }

    fn tone(self) -> Tone {
        match self {
            Self::Ok => Tone::Good,
            Self::Warning => Tone::Notable,
            Self::Failed => Tone::Bad,
            Self::Skipped => Tone::Faint,
        }
    }
}

impl Check {
    /// `name` is as it should be.
    pub fn ok(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, Verdict::Ok, detail, None)
    }

    /// `name` works, and should be looked at.
    pub fn warning(
        name: impl Into<String>,
        detail: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(name, Verdict::Warning, detail, Some(advice.into()))
    }

    /// `name` does not work.
    pub fn failed(
        name: impl Into<String>,
        detail: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(name, Verdict::Failed, detail, Some(advice.into()))
    }

    /// There is nothing to look at.
    pub fn skipped(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, Verdict::Skipped, detail, None)
    }

    fn new(
        name: impl Into<String>,
        verdict: Verdict,
        detail: impl Into<String>,
        advice: Option<String>,
    ) -> Self {
        Self {
            name: name.into(),
            verdict,
            detail: detail.into(),
            advice,
        }
    }
}

/// What is shown on a terminal while the checks run; to be cleared afterwards.
pub fn waiting() -> ProgressBar {
    let waiting = output::progress(None, "checks done");
    if !waiting.is_hidden() {
        waiting.enable_steady_tick(Duration::from_millis(100));
    }
    waiting
}

/// Shows what was found.
///
/// # Errors
/// [`CliError::Reported`] when a check failed, or with `--strict` warned.
pub fn report(args: &Args, as_json: bool, checks: &[Check]) -> Result<(), CliError> {
    let fails = |check: &Check| match check.verdict {
        Verdict::Failed => true,
        Verdict::Warning => args.strict,
        Verdict::Ok | Verdict::Skipped => false,
    };
    let is_ok = !checks.iter().any(fails);
    if as_json {
        output::json(&document(checks, is_ok))?;
    } else {
        let look = Look::detect();
        let rows = checks.iter().map(|check| row(look, check)).collect();
        output::table(look, &["VERDICT", "CHECK", "FOUND"], rows)?;
        output::line(&format!("\n{}", summary(checks)))?;
    }
    match is_ok {
        true => Ok(()),
        false => Err(CliError::Reported),
    }
}

fn document(checks: &[Check], is_ok: bool) -> Value {
    let one = |check: &Check| {
        json!({
            "name": check.name,
            "verdict": check.verdict.name(),
            "detail": check.detail,
            "advice": check.advice,
        })
    };
    let checks: Vec<Value> = checks.iter().map(one).collect();
    json!({ "checks": checks, "ok": is_ok })
}

fn row(look: Look, check: &Check) -> Vec<Cell> {
    let verdict = check.verdict;
    let mut found = output::visible(&check.detail);
    if let Some(advice) = &check.advice {
        found = format!("{found}\n→ {}", output::visible(advice));
    }
    vec![
        look.cell(
            verdict.tone(),
            format!("{} {}", verdict.sign(), verdict.name()),
        ),
        Cell::new(&check.name),
        Cell::new(found),
    ]
}

fn summary(checks: &[Check]) -> String {
    let of = |verdict| checks.iter().filter(|one| one.verdict == verdict).count() as u64;
    let warnings = output::count(of(Verdict::Warning), "warning");
    format!(
        "{} ok, {warnings}, {} failed, {} skipped",
        of(Verdict::Ok),
        of(Verdict::Failed),
        of(Verdict::Skipped)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_fail_where_one_is_strict() {
        let fine = Check::ok("a", "fine");
        let odd = Check::warning("b", "odd", "look at it");
        let broken = Check::failed("c", "broken", "mend it");
        let code = |strict, checks: &[Check]| match report(&Args { strict }, true, checks) {
            Ok(()) => 0,
            Err(error) => error.exit_code(),
        };
        let skipped = Check::skipped("d", "not there");
        for (checks, lax, strict) in [
            (vec![fine.clone(), skipped], 0, 0),
            (vec![fine, odd.clone()], 0, 1),
            (vec![odd, broken], 1, 1),
        ] {
            assert_eq!((code(false, &checks), code(true, &checks)), (lax, strict));
        }
    }

    #[test]
    fn a_program_reads_every_check() {
        let checks = [Check::ok("a", "fine"), Check::failed("b", "why", "what")];
        let expected = json!({ "ok": false, "checks": [
            { "name": "a", "verdict": "ok", "detail": "fine", "advice": null },
            { "name": "b", "verdict": "failed", "detail": "why", "advice": "what" },
        ]});
        assert_eq!(document(&checks, false), expected);
        assert_eq!(summary(&checks), "1 ok, 0 warnings, 1 failed, 0 skipped");
    }
}
