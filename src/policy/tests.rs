//! What a policy allows, what its patterns match, and what is said about a file that is wrong.

use proptest::prelude::*;

use super::{Policy, pattern::CallerPattern};
use crate::caller::CallerIdentity;

fn spiffe(id: &str) -> CallerIdentity {
    CallerIdentity::Spiffe(id.to_owned())
}

fn dns(names: &[&str]) -> CallerIdentity {
    CallerIdentity::Dns(names.iter().map(|name| (*name).to_owned()).collect())
}

/// A policy of one rule for every vault of every account.
fn for_caller(pattern: &str) -> Policy {
    Policy::parse(&format!("[[allow]]\ncallers = [{pattern:?}]\naccounts = [\"*\"]\nvaults = [\"*\"]")).unwrap()
}

fn knows(pattern: &str, caller: &CallerIdentity) -> bool {
    for_caller(pattern).allows(Some(caller), "-", "v")
}

#[test]
fn a_call_needs_one_rule_that_names_its_caller_its_account_and_its_vault() {
    let policy = Policy::parse(
        r#"
        [[allow]]
        callers = ["spiffe://prod.example/ns/restore/sa/*", "*.restore.svc.cluster.local"]
        accounts = ["-", "123456789012"]
        vaults = ["photos", "logs-*"]

        [[allow]]
        callers = ["spiffe://prod.example/ns/audit/**"]
        accounts = ["*"]
        vaults = ["*"]
        "#,
    )
    .unwrap();
    let worker = spiffe("spiffe://prod.example/ns/restore/sa/worker");
    let pod = dns(&["pod-1", "pod-1.restore.svc.cluster.local"]);
    for caller in [&worker, &pod] {
        for (account, vault, allowed) in [
            ("-", "photos", true),
            ("123456789012", "photos", true),
            ("-", "logs-", true),
            ("-", "logs-2026", true),
            ("210987654321", "photos", false),
            ("-", "photos2", false),
            ("-", "photo", false),
            ("-", "logs", false),
            ("-", "my-logs-2026", false),
        ] {
            assert_eq!(policy.allows(Some(caller), account, vault), allowed, "{caller} {account} {vault}");
        }
    }
    let auditor = spiffe("spiffe://prod.example/ns/audit/sa/anything");
    assert!(policy.allows(Some(&auditor), "210987654321", "anything"));
    assert!(!policy.allows(Some(&spiffe("spiffe://prod.example/ns/other/sa/worker")), "-", "photos"));
    assert!(!policy.allows(None, "-", "photos"), "nobody is anonymous before a policy");
}

#[test]
fn a_policy_without_rules_denies_everybody() {
    let policy = Policy::parse("allow = []").unwrap();
    assert!(policy.is_empty());
    assert!(!policy.allows(Some(&spiffe("spiffe://prod.example/a")), "-", "v"));
}

/// A file that has just been truncated looks so.
#[test]
fn an_empty_file_is_no_policy() {
    for text in ["", "# nobody\n"] {
        let errors = Policy::parse(text).unwrap_err();
        assert_eq!(errors.to_string(), "line 1: no rules; to deny everybody write allow = []");
    }
}

/// Neither spelling of the own account opens what only the other is allowed.
#[test]
fn the_own_account_is_allowed_in_the_spelling_that_the_rule_has() {
    let caller = spiffe("spiffe://prod.example/a");
    let rule = |account: &str| {
        let text = format!("allow = [{{callers = [\"{caller}\"], accounts = [\"{account}\"], vaults = [\"v\"]}}]");
        let policy = Policy::parse(&text).unwrap();
        ["-", "123456789012"].map(|account| policy.allows(Some(&caller), account, "v"))
    };
    assert_eq!(rule("-"), [true, false]);
    assert_eq!(rule("123456789012"), [false, true]);
    assert_eq!(rule("*"), [true, true]);
}

#[test]
fn what_patterns_for_spiffe_ids_match() {
    for (pattern, id, expected) in [
        ("spiffe://a.b/x", "spiffe://a.b/x", true),
        ("spiffe://a.b", "spiffe://a.b", true),
        ("spiffe://a.b", "spiffe://a.b/x", false),
        ("spiffe://a.b/x", "spiffe://a.b/X", false),
        ("spiffe://a.b/x", "spiffe://a.b/x/", false),
        ("spiffe://a.b/*", "spiffe://a.b/x", true),
        ("spiffe://a.b/*", "spiffe://a.b/x/y", false),
        ("spiffe://a.b/*", "spiffe://a.b", false),
        ("spiffe://a.b/*", "spiffe://a.b/", false),
        ("spiffe://a.b/*", "spiffe://a.b.c/x", false),
        ("spiffe://a.b/*/y/*", "spiffe://a.b/x/y/z", true),
        ("spiffe://a.b/*/y/*", "spiffe://a.b/x/x/z", false),
        ("spiffe://a.b/**", "spiffe://a.b/x/y/z", true),
        ("spiffe://a.b/**", "spiffe://a.b", false),
        ("spiffe://a.b/**", "spiffe://other/x", false),
        ("spiffe://a.b/x/**", "spiffe://a.b/x", false),
        // Not legal as SPIFFE IDs, so no wildcard takes them.
        ("spiffe://a.b/x/**", "spiffe://a.b/x/../y", false),
        ("spiffe://a.b/x/**", "spiffe://a.b/x//y", false),
        ("spiffe://a.b/x/**", "spiffe://a.b/x/y?z", false),
        ("spiffe://a.b/x/*", "spiffe://a.b/x/%2e%2e", false),
        ("spiffe://a.b/*", "spiffe://a.b/*", false),
    ] {
        assert_eq!(knows(pattern, &spiffe(id)), expected, "{pattern} {id}");
    }
}

#[test]
fn what_patterns_for_dns_names_match() {
    for (pattern, name, expected) in [
        ("a.svc", "a.svc", true),
        ("A.Svc", "a.svc", true),
        ("a.svc", "b.a.svc", false),
        ("*.a.svc", "b.a.svc", true),
        ("*.a.svc", "c.b.a.svc", false),
        ("*.a.svc", "a.svc", false),
        ("*.a.svc", ".a.svc", false),
        ("*.a.svc", "ba.svc", false),
        ("**.a.svc", "c.b.a.svc", true),
        ("**.a.svc", "a.svc", false),
        ("**.a.svc", "c..a.svc", false),
        ("b.*.svc", "b.a.svc", true),
        ("b.*.svc", "c.a.svc", false),
        // A certificate's own wildcard is none of the names that it covers.
        ("*.a.svc", "*.a.svc", false),
        ("**.a.svc", "*.b.a.svc", false),
    ] {
        assert_eq!(knows(pattern, &dns(&[name])), expected, "{pattern} {name}");
    }
    assert!(knows("b.svc", &dns(&["a.svc", "b.svc"])), "any of the names will do");
}

#[test]
fn a_pattern_of_one_kind_never_matches_a_name_of_the_other() {
    assert!(!knows("a.svc", &spiffe("a.svc")));
    assert!(!knows("**.svc", &spiffe("spiffe://a.svc")));
    assert!(!knows("spiffe://a.svc/*", &dns(&["spiffe://a.svc/x"])));
    assert!(!knows("spiffe://a.svc", &dns(&["spiffe://a.svc"])));
}

#[test]
fn patterns_that_could_be_misread_are_refused() {
    for pattern in [
        "",
        "*",
        "**",
        "a.*",
        "a.**",
        "*a.svc",
        "a.**.svc",
        "a..svc",
        "a.svc.",
        ".svc",
        "a b.svc",
        "ä.svc",
        "a/b",
        "spiffe://",
        "spiffe://*",
        "spiffe://**",
        "spiffe://*/x",
        "spiffe://*.example/x",
        "spiffe://Prod.example/x",
        "spiffe:///x",
        "spiffe://a/",
        "spiffe://a//x",
        "spiffe://a/x/",
        "spiffe://a/../x",
        "spiffe://a/x*",
        "spiffe://a/**/x",
        "spiffe://a/***",
        "spiffe://a/x y",
        "spiffe://a:80/x",
        "spiffe://user@a/x",
        "SPIFFE://a/x",
        "https://a/x",
    ] {
        assert!(CallerPattern::parse(pattern).is_err(), "{pattern}");
    }
    assert!(CallerPattern::parse(&format!("spiffe://a/{}", "x".repeat(2048))).is_err());
}

#[test]
fn every_problem_is_told_with_its_line_its_rule_and_what_is_accepted() {
    let errors = Policy::parse(
        r#"allows = true
[[allow]]
callers = ["*", 7,
  "spiffe://*/x"]
accounts = ["12345"]
vaults = "photos"
valuts = []

[[allow]]
callers = []
vaults = ["a*b", "photos", ".."]
"#,
    )
    .unwrap_err();
    let told: Vec<_> = errors.iter().map(ToString::to_string).collect();
    let expected = [
        ("line 1: ", "\"allows\"", "[[allow]]"),
        ("line 3: ", "rule 1", "texts only, not integer"),
        ("line 3: ", "rule 1: caller \"*\"", "DNS name"),
        ("line 4: ", "rule 1: caller \"spiffe://*/x\"", "without a wildcard"),
        ("line 5: ", "rule 1: account \"12345\"", "12 digits, - or *"),
        ("line 6: ", "rule 1: vaults", "list of texts, not string"),
        ("line 7: ", "rule 1", "unknown key \"valuts\"; accepted: callers, accounts, vaults"),
        ("line 9: ", "rule 2", "no accounts"),
        ("line 10: ", "rule 2: callers", "empty"),
        ("line 11: ", "rule 2: vault \"a*b\"", "beginning"),
        ("line 11: ", "rule 2: vault \"..\"", "name"),
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, (line, place, what)) in told.iter().zip(expected) {
        assert!(told.starts_with(line) && told.contains(place) && told.contains(what), "{told}: {line}{place} {what}");
    }
    assert!(told.iter().all(|line| errors.to_string().contains(line)), "{errors}");
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    let errors = Policy::parse("[[allow]]\ncallers = [\nvaults = [\"v\"]\n").unwrap_err().to_string();
    assert!(errors.starts_with("line "), "{errors}");
    assert!(errors.contains("no TOML"), "{errors}");
    assert!(!errors.contains('\n'), "{errors}");
    assert!(Policy::parse("allow = 1").unwrap_err().to_string().contains("each begins with [[allow]]"));
    assert!(Policy::parse("allow = [1]").unwrap_err().to_string().contains("rule 1 is no table"));
}

/// What the patterns mean, in so many words: part for part from the rooted end.
fn naive(pattern: &[&str], given: &[&str], is_legal: &dyn Fn(&str) -> bool) -> bool {
    match (pattern, given) {
        ([], []) => true,
        (["**"], [part]) => is_legal(part),
        (["**"], [part, rest @ ..]) => is_legal(part) && naive(pattern, rest, is_legal),
        (["*", pattern @ ..], [part, rest @ ..]) => is_legal(part) && naive(pattern, rest, is_legal),
        ([literal, pattern @ ..], [part, rest @ ..]) => literal == part && naive(pattern, rest, is_legal),
        ([], _) | (_, []) => false,
    }
}

fn parts(texts: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(prop::sample::select(texts), 0..5)
}

proptest! {
    #[test]
    fn spiffe_patterns_match_as_a_naive_matcher_does(
        pattern in parts(&["a", "b", "ab", "*", "**"]),
        name in parts(&["a", "b", "ab", "a.b", "", "..", "*", "a b"]),
        domain in prop::sample::select(&["d", "dd"][..]),
    ) {
        let join = |parts: &[&str]| parts.iter().fold("spiffe://d".to_owned(), |id, part| format!("{id}/{part}"));
        let is_open_inside = pattern.iter().rev().skip(1).any(|part| *part == "**");
        match CallerPattern::parse(&join(&pattern)) {
            Ok(CallerPattern::Spiffe(compiled)) => {
                prop_assert!(!is_open_inside);
                let is_legal = |part: &str| matches!(part, "a" | "b" | "ab" | "a.b");
                let id = join(&name).replace("//d", &format!("//{domain}"));
                let expected = domain == "d" && naive(&pattern, &name, &is_legal);
                prop_assert_eq!(compiled.matches(&id), expected, "{:?} {}", pattern, id);
            }
            Ok(CallerPattern::Dns(_)) => prop_assert!(false, "{:?} is no DNS name", pattern),
            Err(why) => prop_assert!(is_open_inside, "{:?} {}", pattern, why),
        }
    }

    #[test]
    fn dns_patterns_match_as_a_naive_matcher_does(
        pattern in parts(&["a", "b", "ab", "*", "**"]),
        name in parts(&["a", "b", "ab", "", "*", "a b"]),
    ) {
        let join = |parts: &[&str]| parts.iter().rev().copied().collect::<Vec<_>>().join(".");
        let (rooted_pattern, rooted_name) = ([&["z"], &pattern[..]].concat(), [&["z"], &name[..]].concat());
        let is_open_inside = pattern.iter().rev().skip(1).any(|part| *part == "**");
        match CallerPattern::parse(&join(&rooted_pattern)) {
            Ok(CallerPattern::Dns(compiled)) => {
                prop_assert!(!is_open_inside);
                let is_legal = |part: &str| matches!(part, "a" | "b" | "ab");
                let expected = naive(&rooted_pattern, &rooted_name, &is_legal);
                prop_assert_eq!(compiled.matches(&join(&rooted_name)), expected, "{:?} {:?}", pattern, name);
            }
            Ok(CallerPattern::Spiffe(_)) => prop_assert!(false, "{:?} is no SPIFFE ID", pattern),
            Err(why) => prop_assert!(is_open_inside, "{:?} {}", pattern, why),
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "(\\[\\[allow\\]\\]\n)?(callers|accounts|vaults|x)? ?=? ?\\[?[\"*a-z:/.]{0,20}\\]?\n?.*") {
        let _read = Policy::parse(&text);
    }
}
