//! A bank: money is moved between accounts and never made or lost, so whoever reads all accounts of one moment finds the same sum.
//!
//! Source: the bank workload of Jepsen; snapshot isolation, Berenson et al. 1995 (read skew shows as a wrong sum).

use crate::Verdict;
use std::collections::BTreeMap;

/// All accounts, as one reader saw them at one moment.
pub type Statement = BTreeMap<String, i64>;

/// Judges statements of a bank with so many accounts and so much money.
#[must_use]
pub fn check(statements: &[Statement], accounts: usize, money: i64) -> Verdict {
    let mut violations = Vec::new();
    for statement in statements {
        let sum: i64 = statement.values().sum();
        if statement.len() != accounts {
            violations.push(format!("{} of {accounts} accounts were read: {statement:?}", statement.len()));
        } else if sum != money {
            violations.push(format!("the accounts hold {sum} instead of {money}: {statement:?}"));
        } else if statement.values().any(|balance| *balance < 0) {
            violations.push(format!("an account is overdrawn: {statement:?}"));
        }
    }
    Verdict::from_violations(violations)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(balances: [i64; 3]) -> bool {
        let statement: Statement = ["a", "b", "c"].map(str::to_owned).into_iter().zip(balances).collect();
        check(&[statement], 3, 30).passes()
    }

    #[test]
    fn money_that_is_made_or_lost_is_caught() {
        assert!(judge([10, 10, 10]) && judge([30, 0, 0]));
        assert!(!judge([10, 10, 11]) && !judge([10, 10, 9]));
    }

    #[test]
    fn an_overdraft_is_caught() {
        assert!(!judge([-1, 31, 0]));
    }

    #[test]
    fn an_account_that_is_not_read_is_caught() {
        let statement: Statement = [("a".to_owned(), 20), ("b".to_owned(), 10)].into();
        assert!(!check(&[statement], 3, 30).passes());
    }
}
