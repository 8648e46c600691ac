//! What the dashboard and the alert rules ask Prometheus for.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::Sample;

/// Labels that Prometheus adds, or that its functions make.
const NOT_OURS: [&str; 3] = ["instance", "job", "le"];

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/admin/grafana").join(name)
}

/// One selector of a query: a name and the labels it insists on.
#[derive(Debug, PartialEq, Eq)]
struct Selector {
    name: String,
    labels: Vec<(String, String, String)>,
}

/// The selectors of a query, and the labels it groups by.
fn read(query: &str) -> (Vec<Selector>, Vec<String>) {
    let mut selectors = Vec::new();
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut rest = query;
    while let Some(at) = rest.find("anteroom_") {
        let from = &rest[at..];
        let end = from.find(|c| !is_word(c)).unwrap_or(from.len());
        let (name, after) = from.split_at(end);
        let mut labels = Vec::new();
        rest = after;
        if let Some((within, after)) = after.strip_prefix('{').and_then(|after| after.split_once('}')) {
            for matcher in within.split(',').map(str::trim).filter(|matcher| !matcher.is_empty()) {
                let label_end = matcher.find(|c| !is_word(c)).expect("a matcher has an operator");
                let (label, condition) = matcher.split_at(label_end);
                let (operator, value) = condition.split_once('"').expect("a value in quotes");
                labels.push((label.to_owned(), operator.trim().to_owned(), value.trim_end_matches('"').to_owned()));
            }
            rest = after;
        }
        selectors.push(Selector { name: name.to_owned(), labels });
    }
    let mut groups = Vec::new();
    for keyword in ["by", "without", "on", "ignoring"] {
        for (at, _) in query.match_indices(keyword) {
            let before_is_word = query[..at].chars().next_back().is_some_and(is_word);
            if !before_is_word && let Some(within) = query[at + keyword.len()..].trim_start().strip_prefix('(') {
                let within = within.split(')').next().unwrap_or_default();
                groups.extend(within.split(',').map(|label| label.trim().to_owned()).filter(|label| !label.is_empty()));
            }
        }
    }
    (selectors, groups)
}

/// What is wrong with a query, given what scrapes have.
fn flaw(query: &str, seen: &BTreeSet<Sample>) -> Option<String> {
    let (selectors, groups) = read(query);
    if selectors.is_empty() {
        return Some("it asks for nothing of ours".to_owned());
    }
    for selector in &selectors {
        let mut of_name = seen.iter().filter(|(name, _)| *name == selector.name).peekable();
        if of_name.peek().is_none() {
            return Some(format!("there is no {}", selector.name));
        }
        let insists =
            selector.labels.iter().filter(|(label, _, value)| !NOT_OURS.contains(&&**label) && !value.contains('$'));
        let matches = |labels: &std::collections::BTreeMap<String, String>| {
            insists.clone().all(|(label, operator, value)| match (labels.get(label), operator.as_str()) {
                (Some(found), "=") => found == value,
                (Some(found), "=~") => value.split('|').any(|one| one == found || one == ".*" || one == ".+"),
                (Some(_), "!=" | "!~") => true,
                _ => false,
            })
        };
        if !of_name.any(|(_, labels)| matches(labels)) {
            return Some(format!("nothing matches {selector:?}"));
        }
    }
    let known = |label: &String| {
        NOT_OURS.contains(&&**label)
            || selectors.iter().any(|s| seen.iter().any(|(name, labels)| *name == s.name && labels.contains_key(label)))
    };
    groups.iter().find(|label| !known(label)).map(|label| format!("there is no label {label}"))
}

fn dashboard_queries() -> Vec<String> {
    fn walk(value: &serde_json::Value, queries: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(object) => {
                queries.extend(object.get("expr").and_then(|expr| expr.as_str()).map(str::to_owned));
                object.values().for_each(|value| walk(value, queries));
            }
            serde_json::Value::Array(array) => array.iter().for_each(|value| walk(value, queries)),
            _ => {}
        }
    }
    let text = fs::read_to_string(file("dashboard.json")).expect("it is there");
    let dashboard = serde_json::from_str(&text).expect("it is JSON");
    let mut queries = Vec::new();
    walk(&dashboard, &mut queries);
    queries
}

/// The rules have one line each for what they ask.
fn alert_queries() -> Vec<String> {
    let text = fs::read_to_string(file("alerts.yml")).expect("it is there");
    let of_line = |line: &str| line.trim().strip_prefix("expr: ").map(|expr| expr.trim_matches('\'').to_owned());
    text.lines().filter_map(of_line).collect()
}

pub(super) fn find_what_they_ask_for(seen: &BTreeSet<Sample>) {
    let (panels, alerts) = (dashboard_queries(), alert_queries());
    assert!(panels.len() >= 20 && alerts.len() >= 10, "{} and {} queries", panels.len(), alerts.len());
    // Prometheus itself says whether a target is up.
    let ours = panels.iter().chain(&alerts).filter(|query| !query.starts_with("up"));
    let flaws: Vec<String> = ours.filter_map(|query| Some(format!("{query}: {}", flaw(query, seen)?))).collect();
    assert!(flaws.is_empty(), "{}", flaws.join("\n"));
}

#[test]
fn a_query_for_what_is_not_there_is_found() {
    let labels = [("reason".to_owned(), "max".to_owned())].into();
    let seen: BTreeSet<Sample> = [("anteroom_a_total".to_owned(), labels)].into();
    assert_eq!(flaw("sum by (reason) (rate(anteroom_a_total{reason=\"max\",job=~\"$job\"}[5m])) > 0", &seen), None);
    for (query, why) in [
        ("rate(anteroom_b_total[5m])", "no anteroom_b_total"),
        ("rate(anteroom_a_total{reason=\"min\"}[5m])", "nothing matches"),
        ("rate(anteroom_a_total{cause=\"max\"}[5m])", "nothing matches"),
        ("sum by (cause) (anteroom_a_total)", "no label cause"),
        ("vector(1)", "nothing of ours"),
    ] {
        assert!(flaw(query, &seen).is_some_and(|flaw| flaw.contains(why)), "{query}: {:?}", flaw(query, &seen));
    }
}

#[test]
fn prometheus_itself_accepts_the_rules() {
    // Where Debian's package prometheus is installed: .ci/run does.
    let Ok(said) = Command::new("promtool").args(["check", "rules"]).arg(file("alerts.yml")).output() else { return };
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}
