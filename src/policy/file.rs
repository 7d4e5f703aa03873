//! From TOML to rules, with every problem in the file and where it is.
//!
//! The document is walked by hand instead of deserialized: serde would stop at the first problem and forget the lines.

use std::fmt;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Rule,
    pattern::{Accounts, CallerPattern, VaultPattern},
};

/// Everything that is wrong with a policy file; at least one problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyErrors(Vec<PolicyError>);

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct PolicyError {
    /// Where, counted from 1.
    pub line: usize,
    /// In which rule, what it is, and what would be accepted.
    pub what: String,
}

impl PolicyErrors {
    /// The file is no text after this beginning.
    pub(super) fn no_text(beginning: &[u8]) -> Self {
        let line = beginning.split(|byte| *byte == b'\n').count();
        Self(vec![PolicyError { line, what: "not UTF-8".to_owned() }])
    }

    /// The problems, from the file's first line to its last.
    pub fn iter(&self) -> impl Iterator<Item = &PolicyError> {
        self.0.iter()
    }
}

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if n == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyErrors {}

pub(super) fn read(text: &str) -> Result<Vec<Rule>, PolicyErrors> {
    let (document, broken) = DeTable::parse_recoverable(text);
    let mut reader = Reader { text, errors: Vec::new() };
    // What a broken document seems to say would only be confusing.
    let rules = if broken.is_empty() { reader.document(document.get_ref()) } else { Vec::new() };
    for error in broken {
        let what = error.message().lines().collect::<Vec<_>>().join(" ");
        reader.note(error.span().map_or(0, |span| span.start), format!("no TOML: {what}"));
    }
    reader.errors.sort_by_key(|error| error.line);
    if reader.errors.is_empty() { Ok(rules) } else { Err(PolicyErrors(reader.errors)) }
}

const LISTS: [&str; 3] = ["callers", "accounts", "vaults"];

struct Reader<'t> {
    text: &'t str,
    errors: Vec<PolicyError>,
}

/// Each method notes the problems that it finds and goes on.
impl Reader<'_> {
    fn note(&mut self, at: usize, what: impl Into<String>) {
        let before = self.text.get(..at).unwrap_or(self.text);
        self.errors.push(PolicyError { line: before.matches('\n').count() + 1, what: what.into() });
    }

    fn document(&mut self, table: &DeTable<'_>) -> Vec<Rule> {
        let mut rules = Vec::new();
        // A file that is being written begins so, and would shut everybody out.
        if table.is_empty() {
            self.note(0, "no rules; to deny everybody write allow = []");
        }
        for (key, value) in table {
            match (&**key.get_ref(), value.get_ref()) {
                ("allow", DeValue::Array(items)) => {
                    for (item, number) in items.iter().zip(1..) {
                        rules.extend(self.rule(number, item));
                    }
                }
                ("allow", _) => self.note(key.span().start, "allow is no list of rules; each begins with [[allow]]"),
                (unknown, _) => self.note(key.span().start, format!("unknown key {unknown:?}; accepted: [[allow]]")),
            }
        }
        rules
    }

    /// A rule, or nothing if anything in it is wrong.
    fn rule(&mut self, number: usize, value: &Spanned<DeValue<'_>>) -> Option<Rule> {
        let DeValue::Table(table) = value.get_ref() else {
            self.note(value.span().start, format!("rule {number} is no table with {}", LISTS.join(", ")));
            return None;
        };
        let known = self.errors.len();
        for key in table.keys().filter(|key| !LISTS.contains(&&**key.get_ref())) {
            let accepted = LISTS.join(", ");
            let what = format!("rule {number} has the unknown key {:?}; accepted: {accepted}", key.get_ref());
            self.note(key.span().start, what);
        }
        let mut list = |name| self.list(number, value.span().start, table, name);
        let [callers, accounts, vaults] = [list("callers"), list("accounts"), list("vaults")];

        let (mut spiffe, mut dns) = (Vec::new(), Vec::new());
        for (at, text) in callers {
            match CallerPattern::parse(&text) {
                Ok(CallerPattern::Spiffe(pattern)) => spiffe.push(pattern),
                Ok(CallerPattern::Dns(pattern)) => dns.push(pattern),
                Err(why) => self.note(at, format!("rule {number}: caller {text:?} {why}")),
            }
        }
        for (at, text) in &accounts {
            if let Err(why) = Accounts::check(text) {
                self.note(*at, format!("rule {number}: account {text:?} {why}"));
            }
        }
        let accounts = if accounts.iter().any(|(_, text)| text == Accounts::ANY) {
            Accounts::Any
        } else {
            Accounts::Listed(accounts.into_iter().map(|(_, text)| text.into()).collect())
        };
        let mut patterns = Vec::new();
        for (at, text) in vaults {
            match VaultPattern::parse(&text) {
                Ok(pattern) => patterns.push(pattern),
                Err(why) => self.note(at, format!("rule {number}: vault {text:?} {why}")),
            }
        }
        (self.errors.len() == known).then_some(Rule { spiffe, dns, accounts, vaults: patterns })
    }

    /// The texts of a rule's list, and where they are.
    fn list(&mut self, number: usize, rule: usize, table: &DeTable<'_>, name: &str) -> Vec<(usize, String)> {
        let Some(value) = table.get(name) else {
            self.note(rule, format!("rule {number} has no {name}"));
            return Vec::new();
        };
        let at = value.span().start;
        let DeValue::Array(items) = value.get_ref() else {
            self.note(at, format!("rule {number}: {name} must be a list of texts, not {}", value.get_ref().type_str()));
            return Vec::new();
        };
        if items.is_empty() {
            self.note(at, format!("rule {number}: {name} is empty, so the rule would allow nothing"));
        }
        let mut texts = Vec::new();
        for item in items {
            match item.get_ref() {
                DeValue::String(text) => texts.push((item.span().start, text.clone().into_owned())),
                other => {
                    let what = format!("rule {number}: {name} must hold texts only, not {}", other.type_str());
                    self.note(item.span().start, what);
                }
            }
        }
        texts
    }
}
