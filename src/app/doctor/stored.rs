//! Whether the signing secrets that are stored can be read with the keys that are set.

use super::subscriptions_have;
use crate::cli::doctor::Check;
use crate::codec::subscription::Survey;
use crate::config::Config;

/// What is to be said of them; nothing where the store could not be read, which is told already.
pub(super) fn check(config: &Config, survey: Option<&Survey>) -> Option<Check> {
    let name = "stored secrets";
    let survey = survey?;
    let Survey {
        records,
        missing,
        damaged,
        plain,
        ..
    } = survey;
    if !missing.is_empty() {
        let of_key = |(key, n): (&String, &usize)| {
            let have = subscriptions_have(*n);
            format!("{have} a secret under the key `{key}`, which `secrets.keys` does not have")
        };
        let all: Vec<String> = missing.iter().map(of_key).collect();
        let advice = "put the key back into `secrets.keys`, behind the others, and restart; if it \
                      is lost, delete these subscriptions and create them again";
        return Some(Check::failed(name, all.join("; "), advice));
    }
    if *damaged > 0 {
        let detail = format!(
            "{} a record that cannot be read",
            subscriptions_have(*damaged)
        );
        let advice = "a key whose id is right and whose bytes are another's does this too; else \
                      restore them with `carillon subscriptions apply -f FILE`";
        return Some(Check::failed(name, detail, advice));
    }
    if *plain > 0 && config.secrets.keys.first().is_some() {
        let have = subscriptions_have(*plain);
        let detail = format!("{have} a secret that is not encrypted, from before there were keys");
        let advice = "run `carillon secrets rotate`";
        return Some(Check::warning(name, detail, advice));
    }
    let detail = match records {
        0 => "there are no subscriptions yet".to_owned(),
        1 => "that of the 1 subscription can be read".to_owned(),
        n => format!("those of all {n} subscriptions can be read"),
    };
    Some(Check::ok(name, detail))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cli::doctor::Verdict;
    use crate::domain::keys::MasterKey;
    use crate::domain::signature::Secret;

    #[test]
    fn a_lost_key_is_named_with_how_many_need_it() {
        let mut config = Config::default();
        let none = Survey::default();
        let of = |config: &Config, survey: &Survey| check(config, Some(survey)).unwrap();
        assert_eq!(of(&config, &none).verdict, Verdict::Ok);
        assert_eq!(check(&config, None), None);
        let lost = Survey {
            records: 5,
            missing: BTreeMap::from([("old".to_owned(), 3), ("other".to_owned(), 1)]),
            ..Survey::default()
        };
        let told = of(&config, &lost);
        assert_eq!(told.verdict, Verdict::Failed);
        for part in [
            "3 subscriptions have",
            "`old`",
            "1 subscription has",
            "`other`",
        ] {
            assert!(told.detail.contains(part), "{told:?}");
        }
        let damaged = Survey {
            records: 2,
            damaged: 1,
            ..Survey::default()
        };
        assert_eq!(of(&config, &damaged).verdict, Verdict::Failed);
        let plain = Survey {
            records: 2,
            plain: 2,
            ..Survey::default()
        };
        assert_eq!(
            of(&config, &plain).verdict,
            Verdict::Ok,
            "there are no keys"
        );
        let key = MasterKey {
            id: "a".to_owned(),
            key: Secret::new([1; 32]),
        };
        config.secrets.keys.add(key).unwrap();
        assert_eq!(of(&config, &plain).verdict, Verdict::Warning);
    }
}
