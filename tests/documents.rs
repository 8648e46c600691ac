//! The documents: what they point to is there.

use std::fs;
use std::path::{Path, PathBuf};

/// Every README of the project, and the other documents at its top.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = vec![root.join("CHANGELOG.md"), root.join("README.md")];
    let mut folders: Vec<_> = ["benches", "fuzz", "src", "tests"].map(|folder| root.join(folder)).into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() && !entry.ends_with("node_modules") && !entry.ends_with("target") {
                folders.push(entry);
            } else if entry.ends_with("README.md") {
                found.push(entry);
            }
        }
    }
    found
}

/// Where a document's links lead to, outside of code.
fn links(text: &str) -> Vec<&str> {
    let prose = text.lines().filter(|line| !line.starts_with("    "));
    prose.flat_map(|line| line.split("](").skip(1).filter_map(|rest| rest.split(')').next())).collect()
}

/// The word by which a heading is linked to: as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn every_link_between_them_leads_somewhere() {
    let (mut followed, mut broken) = (0, Vec::new());
    for document in documents() {
        let text = fs::read_to_string(&document).expect("a document");
        for link in links(&text).into_iter().filter(|link| !link.starts_with("http")) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if path.is_empty() { document.clone() } else { document.parent().expect("a folder").join(path) };
            let has_heading = |text: String| text.lines().any(|line| line.starts_with('#') && anchor(line) == heading);
            let is_there = match heading {
                "" => target.exists(),
                _ => fs::read_to_string(&target).is_ok_and(has_heading),
            };
            followed += 1;
            if !is_there {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(followed > 40 && broken.is_empty(), "{followed} followed, broken: {broken:#?}");
}

/// Each row of the README's table of costs is one of the whole table, whose figures of two days are a range there, so that the two are not
/// measured apart.
#[test]
fn the_readmes_figures_are_those_of_the_whole_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rows = |document: &str| -> Vec<Vec<String>> {
        let text = fs::read_to_string(root.join(document)).expect("a document");
        let table = text
            .lines()
            .skip_while(|line| !line.starts_with("| | no pipelining | pipeline 16 | pipeline 64 |"))
            .skip(2);
        table
            .take_while(|line| line.starts_with('|'))
            .map(|line| line.split('|').skip(2).map(|cell| cell.trim().to_owned()).collect())
            .collect()
    };
    let as_range = |cell: &String| {
        let mut days: Vec<&str> = cell.split(", ").collect();
        let number = |day: &&str| day.parse::<f64>().unwrap_or(f64::NAN);
        days.sort_by(|one, other| number(one).total_cmp(&number(other)));
        days.join("–")
    };
    let (short, mut whole) = (rows("README.md"), rows("benches/README.md"));
    whole.iter_mut().flatten().for_each(|cell| *cell = as_range(cell));
    assert!(short.len() > 8 && whole.len() > short.len());
    let missing: Vec<_> = short.iter().filter(|cells| !whole.contains(cells)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}
