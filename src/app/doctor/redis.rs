//! Redis: whether it answers, is ours, and keeps what it is given; and its clock.

use std::time::Duration;

use super::{Findings, is_at_least};
use crate::adapters::redis::examine::{Examiner, Server, Untold};
use crate::adapters::system::SystemClock;
use crate::app::backends::vault;
use crate::cli::doctor::Check;
use crate::codec::subscription::Survey;
use crate::config::Config;
use crate::domain::timestamp::UnixMillis;
use crate::ports::Clock as _;

/// The oldest version that Carillon is tested with.
const OLDEST: (u32, u32) = (6, 2);
/// Signatures carry a time that receivers compare with theirs.
const SKEW_MAX: Duration = Duration::from_secs(5);
/// Past this share of its memory Redis is soon full, in percent.
const MEMORY_PERCENT_MAX: u64 = 80;

/// Looks at all of it; says what was seen of the subscriptions.
pub(super) async fn look(config: &Config, found: &Findings<'_>) -> Option<Survey> {
    let (name, prefix) = ("redis", &config.redis.prefix);
    let url = config.redis.url.clone()?;
    let examiner = match Examiner::new(url, config.redis.ca_file.as_deref(), prefix) {
        Ok(examiner) => examiner,
        Err(error) => {
            let advice = "mend `redis.url` or `redis.ca_file`";
            found.add(Check::failed(name, error.to_string(), advice));
            return None;
        }
    };
    let mut answers = false;
    for (place, server) in found.within(name, examiner.servers()).await? {
        match server {
            Ok(server) => {
                answers = true;
                found.extend(of_server(&place, &server, SystemClock.now()));
            }
            Err(why) => {
                let advice = "see that Redis runs there, and that `redis.url` (with its password) and \
                              `redis.ca_file` suit it";
                found.add(Check::failed(name, format!("{place}: {why}"), advice));
            }
        }
    }
    if !answers {
        return None;
    }
    let marked = found.within("redis marker", examiner.is_marked()).await;
    found.extend(marked.as_ref().map(|marked| of_marker(marked, prefix)));
    let vault = vault(config);
    match found
        .within("stored secrets", examiner.survey(&vault))
        .await?
    {
        Ok(survey) => (marked == Some(Ok(true))).then_some(survey),
        Err(why) => {
            let advice = "give the user the commands and keys that Carillon uses";
            found.add(Check::failed("stored secrets", why, advice));
            None
        }
    }
}

fn of_marker(marked: &Result<bool, String>, prefix: &str) -> Check {
    let name = "redis marker";
    match marked {
        Ok(true) => Check::ok(
            name,
            format!("it is Carillon's, under the prefix `{prefix}`"),
        ),
        Ok(false) => Check::failed(
            name,
            format!(
                "it holds no Carillon data under the prefix `{prefix}`, or not all: events wait"
            ),
            "a new one: `carillon init`; after a loss: `carillon subscriptions apply -f FILE`; else \
             `redis.url` leads to another Redis, or `redis.prefix` is another",
        ),
        Err(why) => Check::failed(name, why.clone(), "see what Redis says in its log"),
    }
}

/// What one server says of itself.
fn of_server(place: &str, server: &Server, now: UnixMillis) -> Vec<Check> {
    let clock = server.clock.map(|clock| of_clock(place, clock, now));
    let info = match &server.info {
        Ok(info) => info,
        Err(untold) => {
            return [of_untold(place, untold)]
                .into_iter()
                .chain(clock)
                .collect();
        }
    };
    let text = |name: &str| info.get(name).map(String::as_str);
    let version = text("redis_version").unwrap_or("unknown");
    let detail = format!("{place}: version {version}");
    let mut checks = vec![match is_at_least(version, OLDEST) {
        true => Check::ok("redis", detail),
        false => {
            let advice = format!("Carillon needs {}.{} or later", OLDEST.0, OLDEST.1);
            Check::warning("redis", detail, advice)
        }
    }];
    checks.extend(text("maxmemory_policy").map(|policy| of_eviction(place, policy)));
    let number = |name: &str| text(name)?.parse::<u64>().ok();
    checks.extend(of_memory(place, number("used_memory"), number("maxmemory")));
    checks.extend(text("aof_enabled").map(|enabled| of_persistence(place, enabled == "1")));
    checks.extend(clock);
    checks
}

fn of_untold(place: &str, untold: &Untold) -> Check {
    let name = "redis";
    match untold {
        Untold::Forbidden(why) => {
            let detail = format!("{place}: answers, but does not let its INFO be read: {why}");
            let advice = "allow `INFO` to the user of `redis.url`, for this check";
            Check::warning(name, detail, advice)
        }
        Untold::Failed(why) => {
            let detail = format!("{place}: lets us in, but INFO failed: {why}");
            let advice = "see what it is busy with (`SLOWLOG GET`, its log), and how much it swaps";
            Check::failed(name, detail, advice)
        }
    }
}

fn of_eviction(place: &str, policy: &str) -> Check {
    let name = "redis eviction";
    if policy == "noeviction" {
        return Check::ok(name, format!("{place}: noeviction"));
    }
    Check::warning(
        name,
        format!("{place}: `maxmemory-policy` is {policy}: subscriptions may be evicted"),
        "set it to noeviction: a full Redis is then told of, and nothing is lost",
    )
}

fn of_memory(place: &str, used: Option<u64>, max: Option<u64>) -> Option<Check> {
    let (name, used, max) = ("redis memory", used?, max?);
    let mib = used >> 20;
    if max == 0 {
        let detail = format!("{place}: {mib} MiB used, without a bound (`maxmemory` is 0)");
        return Some(Check::ok(name, detail));
    }
    let percent = used.saturating_mul(100) / max;
    let detail = format!("{place}: {mib} MiB used, {percent} % of `maxmemory`");
    Some(match percent > MEMORY_PERCENT_MAX {
        false => Check::ok(name, detail),
        true => Check::warning(
            name,
            detail,
            "give it more memory, or keep less: `audit.keep`, `audit.per_subscription`",
        ),
    })
}

fn of_persistence(place: &str, is_on: bool) -> Check {
    let name = "redis persistence";
    if is_on {
        return Check::ok(name, format!("{place}: the append-only file is on"));
    }
    Check::warning(
        name,
        format!("{place}: the append-only file is off: a restart may lose subscriptions"),
        "set `appendonly yes`; keep a backup: `carillon subscriptions list --json > subs.json`",
    )
}

fn of_clock(place: &str, theirs: UnixMillis, ours: UnixMillis) -> Check {
    let name = "clock";
    let (ahead, behind) = (ours.since(theirs), theirs.since(ours));
    let skew = ahead.max(behind);
    if skew <= SKEW_MAX {
        return Check::ok(name, format!("within {} s of {place}", SKEW_MAX.as_secs()));
    }
    let way = match ahead > behind {
        true => "ahead of",
        false => "behind",
    };
    let detail = format!("this machine is {} s {way} {place}", skew.as_secs());
    let advice = "have both set their clocks by NTP: receivers refuse signatures whose time is off";
    Check::warning(name, detail, advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Verdict;

    fn verdicts(info: &[(&str, &str)], clock_s: i64) -> Vec<(String, Verdict)> {
        let pairs = info
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let server = Server {
            info: Ok(pairs.collect()),
            clock: Some(UnixMillis(clock_s * 1000)),
        };
        let checks = of_server("redis:6379", &server, UnixMillis(1_000_000));
        checks
            .into_iter()
            .map(|check| (check.name, check.verdict))
            .collect()
    }

    #[test]
    fn a_server_that_keeps_all_is_fine() {
        let info = [
            ("redis_version", "7.2.4"),
            ("maxmemory_policy", "noeviction"),
            ("used_memory", "80"),
            ("maxmemory", "100"),
            ("aof_enabled", "1"),
        ];
        let found = verdicts(&info, 1005);
        assert_eq!(found.len(), 5);
        assert!(
            found.iter().all(|(_, verdict)| *verdict == Verdict::Ok),
            "{found:?}"
        );
    }

    #[test]
    fn a_server_that_may_lose_something_is_told_of() {
        let info = [
            ("redis_version", "6.0.16"),
            ("maxmemory_policy", "allkeys-lru"),
            ("used_memory", "81"),
            ("maxmemory", "100"),
            ("aof_enabled", "0"),
        ];
        for clock_s in [994, 1006] {
            let found = verdicts(&info, clock_s);
            assert_eq!(found.len(), 5);
            assert!(
                found
                    .iter()
                    .all(|(_, verdict)| *verdict == Verdict::Warning),
                "{found:?}"
            );
        }
        let unbounded = of_memory("here", Some(1 << 40), Some(0)).unwrap();
        assert_eq!(unbounded.verdict, Verdict::Ok);
    }

    #[test]
    fn what_may_not_be_asked_is_told_apart_from_what_is_not_answered() {
        let why = || "as it said".to_owned();
        for (untold, expected, part) in [
            (Untold::Forbidden(why()), Verdict::Warning, "allow `INFO`"),
            (Untold::Failed(why()), Verdict::Failed, "busy"),
        ] {
            let server = Server {
                info: Err(untold),
                clock: Some(UnixMillis(900_000)),
            };
            let found = of_server("redis:6379", &server, UnixMillis(1_000_000));
            assert_eq!(found[0].verdict, expected, "{found:?}");
            assert!(found[0].detail.contains("as it said"), "{found:?}");
            assert!(found[0].advice.as_ref().unwrap().contains(part));
            assert_eq!(found[1].name, "clock");
        }
    }

    #[test]
    fn without_the_marker_nothing_goes() {
        assert_eq!(of_marker(&Ok(true), "c").verdict, Verdict::Ok);
        let missing = of_marker(&Ok(false), "c");
        assert_eq!(missing.verdict, Verdict::Failed);
        assert!(missing.advice.unwrap().contains("carillon init"));
        assert_eq!(
            of_marker(&Err("no".to_owned()), "c").verdict,
            Verdict::Failed
        );
    }
}
