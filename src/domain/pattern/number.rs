//! Numbers of patterns and events, compared by value.
//!
//! JSON has one kind of number, `serde_json` has three. Here `1`, `1.0` and `1e0` are the same number, and integers are
//! compared exactly over the whole range of `i64` and `u64`, where a comparison as `f64` would take 2⁵³ and 2⁵³ + 1 for
//! equal. Not here: arithmetic, and decimals finer than an `f64` (the JSON reader has rounded them already).

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use serde_json::Number;

/// 2⁶⁴: every float below it that has no fraction is an integer we hold exactly.
const WHOLE_BELOW: f64 = 18_446_744_073_709_551_616.0;

/// A number in its one canonical form, so that equal numbers are equal values and hash alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Num {
    /// No fraction, and smaller in size than 2⁶⁴.
    Whole(i128),
    /// With a fraction, or at least 2⁶⁴ in size. Never NaN: JSON has none.
    Float(f64),
}

/// One end of a [`Range`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bound {
    pub(super) value: Num,
    pub(super) inclusive: bool,
}

/// `numeric` with an inequality: a lower bound, an upper bound, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Range {
    pub(super) low: Option<Bound>,
    pub(super) high: Option<Bound>,
}

impl Num {
    pub(super) fn of(number: &Number) -> Num {
        if let Some(whole) = number.as_i64() {
            return Num::Whole(whole.into());
        }
        if let Some(whole) = number.as_u64() {
            return Num::Whole(whole.into());
        }
        // `None` only for a number that no f64 holds: larger than all others is what it is.
        let float = number.as_f64().unwrap_or(f64::INFINITY);
        if float.fract() == 0.0 && float.abs() < WHOLE_BELOW {
            // Whole and within ±WHOLE_BELOW: exact.
            #[allow(clippy::cast_possible_truncation)]
            Num::Whole(float as i128)
        } else {
            Num::Float(float)
        }
    }
}

impl Eq for Num {}

impl Hash for Num {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Num::Whole(whole) => whole.hash(state),
            Num::Float(float) => float.to_bits().hash(state),
        }
    }
}

impl Ord for Num {
    fn cmp(&self, other: &Num) -> Ordering {
        match (*self, *other) {
            (Num::Whole(a), Num::Whole(b)) => a.cmp(&b),
            (Num::Float(a), Num::Float(b)) => a.total_cmp(&b),
            (Num::Whole(a), Num::Float(b)) => whole_to_float(a, b),
            (Num::Float(a), Num::Whole(b)) => whole_to_float(b, a).reverse(),
        }
    }
}

impl PartialOrd for Num {
    fn partial_cmp(&self, other: &Num) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Range {
    /// Whether `value` lies between the bounds.
    pub(super) fn contains(&self, value: Num) -> bool {
        let above = self.low.is_none_or(|low| match value.cmp(&low.value) {
            Ordering::Greater => true,
            Ordering::Equal => low.inclusive,
            Ordering::Less => false,
        });
        above
            && self.high.is_none_or(|high| match value.cmp(&high.value) {
                Ordering::Less => true,
                Ordering::Equal => high.inclusive,
                Ordering::Greater => false,
            })
    }

    /// Whether no number at all can lie between the bounds.
    pub(super) fn is_impossible(&self) -> bool {
        let (Some(low), Some(high)) = (self.low, self.high) else {
            return false;
        };
        match low.value.cmp(&high.value) {
            Ordering::Less => false,
            Ordering::Equal => !(low.inclusive && high.inclusive),
            Ordering::Greater => true,
        }
    }
}

/// A canonical float has a fraction (then it is below 2⁵³ in size, and its floor is exact) or is beyond every whole.
fn whole_to_float(whole: i128, float: f64) -> Ordering {
    if float.abs() >= WHOLE_BELOW {
        return if float > 0.0 {
            Ordering::Less
        } else {
            Ordering::Greater
        };
    }
    // Within ±WHOLE_BELOW: exact.
    #[allow(clippy::cast_possible_truncation)]
    let floor = float.floor() as i128;
    if whole <= floor {
        Ordering::Less
    } else {
        Ordering::Greater
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn num(value: Value) -> Num {
        match value {
            Value::Number(number) => Num::of(&number),
            other => panic!("{other} is not a number"),
        }
    }

    #[test]
    fn one_number_has_one_form() {
        assert_eq!(num(json!(1)), num(json!(1.0)));
        assert_eq!(num(json!(-0.0)), num(json!(0)));
        assert_eq!(num(json!(300)), num(json!(3e2)));
        assert_eq!(
            num(json!(9_223_372_036_854_775_808_u64)),
            num(json!(9_223_372_036_854_775_808.0))
        );
    }

    #[test]
    fn numbers_are_ordered_by_value_across_kinds() {
        let ascending = [
            json!(-1e300),
            json!(i64::MIN),
            json!(-1.5),
            json!(-1),
            json!(-0.5),
            json!(0),
            json!(0.5),
            json!(1),
            json!(9_007_199_254_740_992_u64),
            json!(9_007_199_254_740_993_u64),
            json!(i64::MAX),
            json!(u64::MAX),
            json!(1.8446744073709552e19),
            json!(1e300),
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(
                    num(a.clone()).cmp(&num(b.clone())),
                    i.cmp(&j),
                    "{a} against {b}"
                );
            }
        }
    }

    #[test]
    fn a_range_knows_its_ends_and_whether_it_is_empty() {
        let end = |value: i64, inclusive| {
            Some(Bound {
                value: num(json!(value)),
                inclusive,
            })
        };
        let range = Range {
            low: end(0, false),
            high: end(5, true),
        };
        assert!(!range.contains(num(json!(0))));
        assert!(range.contains(num(json!(0.1))));
        assert!(range.contains(num(json!(5))));
        assert!(!range.contains(num(json!(5.1))));
        assert!(!range.is_impossible());
        assert!(
            !Range {
                low: end(5, true),
                high: end(5, true)
            }
            .is_impossible()
        );
        assert!(
            Range {
                low: end(5, true),
                high: end(5, false)
            }
            .is_impossible()
        );
        assert!(
            Range {
                low: end(6, true),
                high: end(5, true)
            }
            .is_impossible()
        );
    }
}
