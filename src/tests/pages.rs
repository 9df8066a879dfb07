//! The pages keep their word: what they link to is there, and their commands are commands.

use std::path::{Path, PathBuf};
use std::process::Command;

/// All pages: the top one, those beside what they describe, and how to contribute.
fn pages() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = vec![root.join("README.md")];
    let mut dirs: Vec<PathBuf> = ["src", "benches", "tuning", ".github"].iter().map(|dir| root.join(dir)).collect();
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 8, "{found:?}");
    found.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// The lines of a page's shell blocks, each without its remark, in one piece where it is continued.
fn commands(page: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut shell = false;
    for line in page.replace("\\\n", " ").lines() {
        if line.trim_start().starts_with("```") {
            shell = line.trim() == "```sh";
        } else if shell {
            commands.push(line.split("  #").next().unwrap_or_default().trim().to_owned());
        }
    }
    commands
}

#[test]
fn no_page_links_to_a_file_that_is_not_there() {
    for (path, text) in pages() {
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://") && !link.starts_with('#')) {
            let target = path.parent().unwrap().join(link.split('#').next().unwrap());
            assert!(target.exists(), "{}: {link}", path.display());
        }
    }
}

#[test]
fn no_page_names_a_make_target_that_the_makefile_does_not_have() {
    let makefile = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Makefile")).unwrap();
    for (path, text) in pages() {
        let inline = text.split('`').filter(|code| !code.contains('\n')).map(str::to_owned);
        for command in commands(&text).into_iter().chain(inline) {
            let Some(target) = command.strip_prefix("make ").and_then(|rest| rest.split_whitespace().next()) else {
                continue;
            };
            assert!(makefile.contains(&format!("\n{target}:")), "{}: {command}", path.display());
        }
    }
}

#[test]
fn no_page_has_a_ringway_command_or_an_option_that_the_binary_does_not_know() {
    let mut seen = 0;
    for (path, text) in pages() {
        for command in commands(&text) {
            // Behind what feeds it, or what its environment is set to.
            let Some((_, arguments)) = command
                .split_once("ringway ")
                .filter(|(before, _)| before.ends_with("release/") || before.is_empty() || before.ends_with("' "))
            else {
                continue;
            };
            let arguments = arguments.split([')', '|']).next().unwrap_or_default();
            let words: Vec<&str> = arguments.split_whitespace().collect();
            let subcommands = words
                .iter()
                .take_while(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-'));
            let help = Command::new(env!("CARGO_BIN_EXE_ringway")).args(subcommands).arg("--help").output().unwrap();
            assert!(help.status.success(), "{}: {command}", path.display());
            let help = String::from_utf8(help.stdout).unwrap();
            for option in words.iter().filter(|word| word.starts_with("--")) {
                assert!(help.contains(option.split('=').next().unwrap()), "{}: {command}: {option}", path.display());
            }
            seen += 1;
        }
    }
    assert!(seen >= 5, "the pages' commands are found: {seen}");
}

#[test]
fn each_line_of_the_clusters_outage_table_names_tests_that_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let page = std::fs::read_to_string(root.join("cluster/README.md")).unwrap();
    let (_, table) = page.split_once("## Outages").unwrap();
    let lines: Vec<&str> = table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(lines.len() >= 12, "{lines:?}");
    for line in lines {
        let (_, named) = line.split_once("<!-- ").unwrap_or_else(|| panic!("no test shows this: {line}"));
        let names: Vec<&str> = named.trim_end_matches("--> |").split_whitespace().collect();
        assert!(!names.is_empty(), "{line}");
        for name in names {
            let (module, test) = name.rsplit_once("::").unwrap();
            let file = format!("{}.rs", module.replace("::", "/"));
            let text = [root.join("tests").join(&file), root.join(&file)]
                .iter()
                .find_map(|path| std::fs::read_to_string(path).ok())
                .unwrap_or_else(|| panic!("there is no {module} for {line}"));
            assert!(text.contains(&format!("#[test]\nfn {test}() {{")), "there is no test {name}");
        }
    }
}
