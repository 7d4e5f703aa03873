//! What stands in a rule's lists, compiled. Matching takes time linear in the name: a pattern has at most one part of open
//! length, and that is its last.

use crate::job;

/// A pattern for names of one kind. Names are read from their rooted end: a SPIFFE ID from its trust domain, a DNS name
/// from its last label.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NamePattern {
    /// This name only.
    Exact(Box<str>),
    /// A beginning of a SPIFFE ID, with the slash, and the path segments after it.
    Spiffe { fixed: Box<str>, open: Vec<Part> },
    /// An end of a DNS name, with the dot, and the labels before it, the last one first.
    Dns { fixed: Box<str>, open: Vec<Part> },
}

/// A segment or a label.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Literal(Box<str>),
    /// `*`: any one.
    One,
    /// `**`: one or more, to the end.
    Rest,
}

/// A pattern of either kind, as it stands in the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CallerPattern {
    Spiffe(NamePattern),
    Dns(NamePattern),
}

/// Longest SPIFFE ID (SPIFFE-ID §2.3), in bytes; no DNS name is longer either.
const NAME_MAX: usize = 2048;
/// Longest label (RFC 1035 §2.3.4), in bytes.
const LABEL_MAX: usize = 63;

impl CallerPattern {
    /// Reads an item of `callers`.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > NAME_MAX {
            return Err("is longer than any name");
        }
        match text.split_once("://") {
            Some(("spiffe", id)) => spiffe(text, id).map(Self::Spiffe),
            Some(_) => Err("is no SPIFFE ID: it must begin with spiffe://"),
            None => dns(&text.to_ascii_lowercase()).map(Self::Dns),
        }
    }
}

fn spiffe(text: &str, id: &str) -> Result<NamePattern, &'static str> {
    let mut segments = id.split('/');
    let domain = segments.next().unwrap_or_default();
    let in_alphabet = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    if domain.is_empty() || !domain.bytes().all(in_alphabet) {
        return Err("must name its trust domain in lower case and without a wildcard");
    }
    let segments: Vec<_> = segments.collect();
    let open = segments.iter().position(|segment| segment.contains('*')).unwrap_or(segments.len());
    let (fixed, rest) = segments.split_at(open);
    let rest = rest.iter().map(|segment| Part::parse(segment)).collect();
    let is_legal = |part: &Part| part.literal().is_none_or(is_segment);
    let (true, Some(open)) = (fixed.iter().all(|segment| is_segment(segment)), parts(rest, is_legal)) else {
        return Err("must be a SPIFFE ID: segments of [A-Za-z0-9._-] other than . and .., where * stands for a whole \
                    segment, and ** for one or more at the end");
    };
    if open.is_empty() {
        return Ok(NamePattern::Exact(text.into()));
    }
    let fixed: String = std::iter::once(&domain).chain(fixed).flat_map(|part| [*part, "/"]).collect();
    Ok(NamePattern::Spiffe { fixed: format!("spiffe://{fixed}").into(), open })
}

fn dns(text: &str) -> Result<NamePattern, &'static str> {
    let labels: Vec<_> = text.rsplit('.').collect();
    let open = labels.iter().position(|label| label.contains('*')).unwrap_or(labels.len());
    let (fixed, rest) = labels.split_at(open);
    if fixed.is_empty() {
        return Err("must be a SPIFFE ID (spiffe://…) or a DNS name whose last label is no wildcard");
    }
    let rest = rest.iter().map(|label| Part::parse(label)).collect();
    let is_legal = |part: &Part| part.literal().is_none_or(is_label);
    let (true, Some(open)) = (fixed.iter().all(|label| is_label(label)), parts(rest, is_legal)) else {
        return Err(
            "must be a DNS name: labels of [A-Za-z0-9_-], where * stands for a whole label, and ** for one or \
                    more at the beginning",
        );
    };
    if open.is_empty() {
        return Ok(NamePattern::Exact(text.into()));
    }
    let fixed: String = fixed.iter().rev().flat_map(|label| [".", *label]).collect();
    Ok(NamePattern::Dns { fixed: fixed.into(), open })
}

/// All parts, if each is one that `is_legal`, and only the last is of open length.
fn parts(parts: Option<Vec<Part>>, is_legal: impl Fn(&Part) -> bool) -> Option<Vec<Part>> {
    let parts = parts?;
    let open_before_the_end = parts.iter().rev().skip(1).any(|part| *part == Part::Rest);
    (!open_before_the_end && parts.iter().all(is_legal)).then_some(parts)
}

impl Part {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "*" => Some(Self::One),
            "**" => Some(Self::Rest),
            text if text.contains('*') => None,
            text => Some(Self::Literal(text.into())),
        }
    }

    fn literal(&self) -> Option<&str> {
        match self {
            Self::Literal(text) => Some(text),
            Self::One | Self::Rest => None,
        }
    }
}

impl NamePattern {
    /// Whether this is a pattern for `name`, which is of its kind.
    pub(super) fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(text) => **text == *name,
            Self::Spiffe { fixed, open } => {
                name.strip_prefix(&**fixed).is_some_and(|rest| fits(open, rest.split('/'), is_segment))
            }
            Self::Dns { fixed, open } => {
                name.strip_suffix(&**fixed).is_some_and(|rest| fits(open, rest.rsplit('.'), is_label))
            }
        }
    }
}

fn fits<'n>(open: &[Part], mut given: impl Iterator<Item = &'n str>, is_legal: impl Fn(&str) -> bool) -> bool {
    for part in open {
        let Some(next) = given.next() else { return false };
        let fits = match part {
            Part::Literal(text) => **text == *next,
            Part::One => is_legal(next),
            Part::Rest => return is_legal(next) && given.all(is_legal),
        };
        if !fits {
            return false;
        }
    }
    given.next().is_none()
}

/// A segment of a SPIFFE ID's path (SPIFFE-ID §2.2).
fn is_segment(text: &str) -> bool {
    let in_alphabet = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !matches!(text, "" | "." | "..") && text.bytes().all(in_alphabet)
}

/// A label of a DNS name in lower case, as [`crate::caller::CallerIdentity`] holds it.
fn is_label(text: &str) -> bool {
    let in_alphabet = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    (1..=LABEL_MAX).contains(&text.len()) && text.bytes().all(in_alphabet)
}

/// The accounts of a rule.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Accounts {
    /// `*`.
    Any,
    /// In the spelling of requests.
    Listed(Vec<Box<str>>),
}

impl Accounts {
    pub(super) const ANY: &str = "*";

    pub(super) fn include(&self, account: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(accounts) => accounts.iter().any(|listed| **listed == *account),
        }
    }

    /// Whether this is an item of `accounts`.
    pub(super) fn check(text: &str) -> Result<(), &'static str> {
        if text == Self::ANY || job::is_account(text) { Ok(()) } else { Err("must be 12 digits, - or *") }
    }
}

/// An item of `vaults`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum VaultPattern {
    Exact(Box<str>),
    /// Names that begin so.
    Beginning(Box<str>),
}

impl VaultPattern {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        match text.strip_suffix('*') {
            Some(beginning) if job::is_beginning_of_vault(beginning) => Ok(Self::Beginning(beginning.into())),
            None if job::is_vault(text) => Ok(Self::Exact(text.into())),
            Some(_) | None => {
                Err("must be a vault's name, 1 to 255 characters of [A-Za-z0-9_.-], or the beginning of one and then *")
            }
        }
    }

    pub(super) fn matches(&self, vault: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *vault,
            Self::Beginning(beginning) => vault.starts_with(&**beginning),
        }
    }
}
