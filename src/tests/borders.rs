//! The borders of the house: which module may know which, read from the imports as they stand in the source.
//!
//! A program of its own without the gateway, so that it is quick. What always holds: an import goes from a later line of
//! [`FLOORS`] to an earlier one, never back and never to a neighbour on the same line; no files import each other in a
//! circle (a file and its own submodules are one thing here, as they are for the compiler); no file names two types of
//! ours that are called the same; no file is longer than [`FILE_LINES_MAX`]. Test files may know everything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up. Modules of one line do not know each other.
const FLOORS: &[&[&str]] = &[
    &["ringway_wire"],
    &["ringway_client"],
    &["ringway_load", "ringway_chaos"],
    &["clock", "limits", "rate"],
    &["contract"],
    &["spending"],
    &["auth"],
    &["journal"],
    &["shard", "ledger", "store"],
    &["topology"],
    &["cluster", "net", "api"],
    &["config"],
    &["log", "datadir"],
    &["token"],
    &["control"],
    &["doctor"],
    &["store_cli"],
    &["serve"],
    &["commands"],
    &["glossary", "send"],
    &["main"],
];

/// Lines of one file, tests included.
const FILE_LINES_MAX: usize = 500;

/// The same thing in two crates that do not know each other: its file says how one becomes the other.
const SAME_IN_TWO_CRATES: &[&str] = &["Now"];

/// One source file.
struct Source {
    /// From the project's root.
    path: PathBuf,
    /// As imports name it: `["store", "mysql"]`; the first is the module on its floor.
    module: Vec<String>,
    text: String,
}

impl Source {
    fn is_test(&self) -> bool {
        self.path.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs" | "sim")))
    }
}

/// All sources under `src/`, generated ones left out.
fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    let mut waiting = vec![PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("generated.rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_owned();
                found.push(Source { module: module_of(&path), path, text });
            }
        }
    }
    found
}

/// `src/store/mysql.rs` is `store::mysql`; `src/wire/frame.rs` is `ringway_wire::frame`.
fn module_of(path: &Path) -> Vec<String> {
    let path = path.strip_prefix("src").unwrap().with_extension("");
    let mut parts: Vec<String> = path.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib")) {
        parts.pop();
    }
    if let Some(first) = parts.first_mut()
        && ["wire", "client", "load", "chaos"].contains(&first.as_str())
    {
        *first = format!("ringway_{first}");
    }
    parts
}

/// Every path that a file names, as full module paths: imports, and paths written out in the code.
fn named(source: &Source) -> BTreeSet<Vec<String>> {
    let code: String =
        source.text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut paths = BTreeSet::new();
    let mut rest = code;
    while let Some(at) = rest.find("use ") {
        let (before, tail) = rest.split_at(at);
        let begins = before.trim_end_matches(' ').ends_with(['\n', ')', '{', '}', ';'])
            || before.is_empty()
            || before.trim_end().ends_with("pub");
        let Some(end) = tail.find(';') else { break };
        if begins {
            leaves(&tail[4..end], &mut Vec::new(), &mut paths);
        }
        rest = &tail[4..];
    }
    for word in code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
        if word.contains("::") {
            paths.insert(word.split("::").map(str::to_owned).collect());
        }
    }
    paths.into_iter().filter_map(|path| resolved(path, &source.module)).collect()
}

/// The leaves of a `use` tree.
fn leaves(tree: &str, prefix: &mut Vec<String>, out: &mut BTreeSet<Vec<String>>) {
    let tree = tree.trim();
    let (head, group) = match tree.find('{') {
        Some(at) => (&tree[..at], Some(tree[at + 1..].trim_end().trim_end_matches('}'))),
        None => (tree, None),
    };
    let depth = prefix.len();
    let head = head.split(" as ").next().unwrap_or_default();
    prefix.extend(head.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned));
    match group {
        None => {
            out.insert(prefix.clone());
        }
        Some(group) => {
            let (mut nesting, mut start) = (0, 0);
            for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
                match c {
                    '{' => nesting += 1,
                    '}' => nesting -= 1,
                    ',' if nesting == 0 => {
                        leaves(&group[start..at], prefix, out);
                        start = (at + 1).min(group.len());
                    }
                    _ => {}
                }
            }
        }
    }
    prefix.truncate(depth);
}

/// A path as seen from the ground: `None` for what is not ours.
fn resolved(path: Vec<String>, module: &[String]) -> Option<Vec<String>> {
    let ours = module.first().filter(|first| first.starts_with("ringway_"));
    let mut at = match path.first()?.as_str() {
        "crate" => ours.into_iter().cloned().collect(),
        "ringway" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module.to_vec(),
        "ringway_wire" | "ringway_client" | "ringway_load" => return Some(path),
        _ => return None,
    };
    for part in path.into_iter().skip_while(|part| ["crate", "ringway", "self"].contains(&part.as_str())) {
        match part.as_str() {
            "super" => {
                at.pop();
            }
            _ => at.push(part),
        }
    }
    Some(at)
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// Whether one can come from `from` to `to`.
fn leads(knows: &BTreeMap<&[String], BTreeSet<&[String]>>, from: &[String], to: &[String]) -> bool {
    let mut waiting = vec![from];
    let mut seen = BTreeSet::new();
    while let Some(at) = waiting.pop() {
        if at == to {
            return true;
        }
        if seen.insert(at) {
            waiting.extend(knows.get(at).into_iter().flatten());
        }
    }
    false
}

#[test]
fn every_module_has_its_floor() {
    let strangers: BTreeSet<_> = sources()
        .iter()
        .filter(|source| !source.is_test())
        .filter_map(|source| source.module.first().cloned())
        .filter(|module| floor(module).is_none())
        .collect();
    assert!(strangers.is_empty(), "no floor for {strangers:?}: say in FLOORS whom they may know");
}

#[test]
fn imports_go_down_and_never_up() {
    let sources = sources();
    let mut wrong = BTreeSet::new();
    for source in sources.iter().filter(|source| !source.is_test()) {
        let Some(from) = source.module.first() else { continue };
        for path in named(source) {
            let Some(to) = path.first().filter(|to| *to != from) else { continue };
            if let (Some(of), Some(onto)) = (floor(from), floor(to))
                && of <= onto
            {
                wrong.insert(format!("{} knows {}", source.path.display(), path.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "these imports go up, or to a neighbour:\n{}", Vec::from_iter(wrong).join("\n"));
}

#[test]
fn no_files_know_each_other_in_a_circle() {
    let sources: Vec<_> = sources().into_iter().filter(|source| !source.is_test()).collect();
    let modules: BTreeMap<_, _> = sources.iter().map(|source| (source.module.clone(), source)).collect();
    let mut knows: BTreeMap<&[String], BTreeSet<&[String]>> = BTreeMap::new();
    for source in &sources {
        for path in named(source) {
            let Some(to) = (1..=path.len()).rev().find_map(|n| modules.get(&path[..n])) else { continue };
            let family = to.module.starts_with(&source.module) || source.module.starts_with(&to.module);
            if !family {
                knows.entry(&source.module).or_default().insert(&to.module);
            }
        }
    }
    let circles: Vec<_> = knows
        .iter()
        .flat_map(|(from, to)| to.iter().map(move |to| (*from, *to)))
        .filter(|(from, to)| leads(&knows, to, from))
        .map(|(from, to)| format!("{} -> {}", from.join("::"), to.join("::")))
        .collect();
    assert!(circles.is_empty(), "these imports close a circle:\n{}", circles.join("\n"));
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<_> = sources()
        .iter()
        .map(|source| (source.text.lines().count(), source.path.display().to_string()))
        .filter(|(lines, _)| *lines > FILE_LINES_MAX)
        .collect();
    assert!(long.is_empty(), "longer than {FILE_LINES_MAX} lines: {long:#?}");
}

/// A `struct`, `enum`, `trait` or `union` that a line makes, not within a function.
fn made_by(line: &str) -> Option<&str> {
    let words: Vec<&str> = line.split([' ', '<', '(', '{', ';', ':']).collect();
    let words = match words.as_slice() {
        ["pub", rest @ ..] => {
            rest.split_first().filter(|(next, _)| ["crate)", "super)"].contains(*next)).map_or(rest, |it| it.1)
        }
        words => words,
    };
    match words {
        ["struct" | "enum" | "trait" | "union", name, ..] => Some(name),
        _ => None,
    }
}

#[test]
fn no_file_names_two_types_that_are_called_the_same() {
    let sources = sources();
    let mut types: BTreeMap<&str, BTreeSet<&[String]>> = BTreeMap::new();
    for source in &sources {
        for name in source.text.lines().filter_map(made_by) {
            types.entry(name).or_default().insert(&source.module);
        }
    }
    let mut wrong = BTreeSet::new();
    for source in &sources {
        let mut met: BTreeMap<String, BTreeSet<Vec<String>>> = BTreeMap::new();
        for mut path in named(source) {
            let Some(at) = path.iter().position(|part| types.contains_key(part.as_str())) else { continue };
            path.truncate(at + 1);
            let Some(name) = path.pop() else { continue };
            // Made there, or passed on from one of its submodules; else a macro's path.
            let makers = types.get(name.as_str()).into_iter().flatten();
            let below: Vec<_> = makers.filter(|maker| maker.starts_with(&path)).collect();
            let here = below.iter().find(|maker| maker.len() == path.len());
            if let Some(maker) = here.or(below.first().filter(|_| below.len() == 1)) {
                met.entry(name).or_default().insert(maker.to_vec());
            }
        }
        for name in source.text.lines().filter_map(made_by) {
            met.entry(name.to_owned()).or_default().insert(source.module.clone());
        }
        for (name, modules) in
            met.iter().filter(|(name, modules)| modules.len() > 1 && !SAME_IN_TWO_CRATES.contains(&name.as_str()))
        {
            let modules: Vec<_> = modules.iter().map(|module| module.join("::")).collect();
            wrong.insert(format!("{}: {name} of {}", source.path.display(), modules.join(" and of ")));
        }
    }
    assert!(wrong.is_empty(), "one name, one meaning; these files meet two:\n{}", Vec::from_iter(wrong).join("\n"));
}
