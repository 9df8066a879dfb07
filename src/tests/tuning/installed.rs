//! `make install`, `make uninstall`, and what systemd makes of the unit.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Said, run};

/// Runs make, as if the binary under test had been built for release.
fn make(target: &str, dest: &Path, more: &[&str]) -> Said {
    let mut command = Command::new("make");
    command
        .args(["-s", "-C", env!("CARGO_MANIFEST_DIR"), target])
        .arg(format!("DESTDIR={}", dest.display()))
        .arg(format!("ringway={}", env!("CARGO_BIN_EXE_ringway")))
        .args(more);
    run(&mut command)
}

/// Files and links under a directory, each with the mode of its bits.
fn files(dir: &Path) -> BTreeSet<(PathBuf, u32)> {
    let mut found = BTreeSet::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let kind = path.symlink_metadata().unwrap();
            if kind.is_dir() {
                dirs.push(path);
            } else {
                found.insert((path.strip_prefix(dir).unwrap().to_owned(), kind.permissions().mode() & 0o777));
            }
        }
    }
    found
}

const INSTALLED: &[(&str, u32)] = &[
    ("bin/ringway", 0o755),
    ("lib/systemd/system/ringway.service", 0o644),
    ("lib/sysusers.d/ringway.conf", 0o644),
    ("lib/tmpfiles.d/ringway.conf", 0o644),
    ("share/bash-completion/completions/ringway", 0o644),
    ("share/fish/vendor_completions.d/ringway.fish", 0o644),
    ("share/ringway/ringway.toml", 0o644),
    ("share/ringway/tuning/README.md", 0o644),
    ("share/ringway/tuning/apply.sh", 0o755),
    ("share/ringway/tuning/common.sh", 0o644),
    ("share/ringway/tuning/nic.sh", 0o644),
    ("share/ringway/tuning/persist.sh", 0o644),
    ("share/ringway/tuning/revert.sh", 0o755),
    ("share/ringway/tuning/seccomp.json", 0o644),
    ("share/ringway/tuning/status.sh", 0o755),
    ("share/ringway/tuning/values.conf", 0o644),
    ("share/zsh/site-functions/_ringway", 0o644),
];
/// Commands that have a page of their own.
const PAGES: &[&str] =
    &["bench-group", "chat", "doctor", "journal-verify", "serve", "soak", "store-check", "token-check"];

fn expected(prefix: &str) -> BTreeSet<(PathBuf, u32)> {
    INSTALLED.iter().map(|(path, mode)| (Path::new(prefix).join(path), *mode)).collect()
}

/// What is installed without the manual pages, which are as many as there are commands; they are looked at here.
fn without_pages(mut found: BTreeSet<(PathBuf, u32)>, prefix: &str) -> BTreeSet<(PathBuf, u32)> {
    let man = Path::new(prefix).join("share/man/man1");
    for page in [String::new()].into_iter().chain(PAGES.iter().map(|name| format!("-{name}"))) {
        assert!(found.contains(&(man.join(format!("ringway{page}.1")), 0o644)), "a page for ringway{page}: {found:?}");
    }
    found.retain(|(path, _)| !path.starts_with(&man));
    found
}

#[test]
fn uninstall_removes_exactly_what_install_installed() {
    let dest = tempfile::tempdir().unwrap();
    let foreign =
        [("usr/local/bin/other", ""), ("usr/local/share/ringway/tuning/notes", ""), ("etc/ringway/ringway.toml", "")];
    for (path, content) in foreign {
        let path = dest.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let before = files(dest.path());
    for _ in 0..2 {
        make("install", dest.path(), &[]).with(0);
        let added: BTreeSet<_> = files(dest.path()).difference(&before).cloned().collect();
        assert_eq!(without_pages(added, "usr/local"), expected("usr/local"));
    }
    make("uninstall", dest.path(), &[]).with(0);
    assert_eq!(files(dest.path()), before);

    let dest = tempfile::tempdir().unwrap();
    make("install", dest.path(), &["PREFIX=/opt/gateway"]).with(0);
    assert_eq!(without_pages(files(dest.path()), "opt/gateway"), expected("opt/gateway"));
    let unit = std::fs::read_to_string(dest.path().join("opt/gateway/lib/systemd/system/ringway.service")).unwrap();
    assert!(unit.contains("ExecStart=/opt/gateway/bin/ringway serve"), "{unit}");
    let entry = std::fs::read_to_string(dest.path().join("opt/gateway/lib/tmpfiles.d/ringway.conf")).unwrap();
    assert!(entry.contains("/opt/gateway/share/ringway/ringway.toml"), "{entry}");
    make("uninstall", dest.path(), &["PREFIX=/opt/gateway"]).with(0);
    assert!(files(dest.path()).is_empty());
    assert!(!dest.path().join("opt/gateway/share/ringway").exists(), "nor our directories");
}

#[test]
fn the_installed_binary_carries_no_debugging_information_and_runs() {
    let dest = tempfile::tempdir().unwrap();
    make("install", dest.path(), &[]).with(0);
    let installed = dest.path().join("usr/local/bin/ringway");
    let sections = run(Command::new("readelf").args(["-S", "--wide"]).arg(&installed)).with(0);
    assert!(sections.text.contains(".text"), "{}", sections.text);
    for left in [".debug_info", ".debug_line", ".symtab"] {
        assert!(!sections.text.contains(left), "{left} in {}", sections.text);
    }
    let version = format!("ringway {} (", env!("CARGO_PKG_VERSION"));
    run(Command::new(&installed).arg("--version")).with(0).says(&version);
}

#[test]
fn the_installed_completions_and_pages_know_every_command_but_the_hidden_one() {
    let dest = tempfile::tempdir().unwrap();
    make("install", dest.path(), &[]).with(0);
    let share = dest.path().join("usr/local/share");
    let read = |path: &str| std::fs::read_to_string(share.join(path)).unwrap();
    let texts = [
        read("bash-completion/completions/ringway"),
        read("zsh/site-functions/_ringway"),
        read("fish/vendor_completions.d/ringway.fish"),
        read("man/man1/ringway.1"),
    ];
    for text in &texts {
        for command in ["serve", "token", "bench", "soak", "chat", "doctor", "journal", "store"] {
            assert!(text.contains(command), "{command}");
        }
    }
    assert!(!texts[3].contains("soak-process"), "it is hidden");
    let bash = share.join("bash-completion/completions/ringway");
    run(Command::new("bash").arg("-n").arg(&bash)).with(0);
}

#[test]
fn no_build_takes_other_versions_than_the_lock_file_has() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scripts = std::fs::read_dir(root.join("scripts")).unwrap().map(|entry| entry.unwrap().path());
    let own = [root.join("Makefile"), root.join(".ci/run")];
    let mut builds = 0;
    for path in scripts.chain(own).filter(|path| path.is_file()) {
        let text = std::fs::read_to_string(&path).unwrap();
        for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
            for command in ["build", "test", "bench", "clippy", "doc"].map(|command| format!("cargo {command}")) {
                if line.contains(&command) {
                    builds += 1;
                    assert!(line.contains(&format!("{command} --locked")), "{}: {line}", path.display());
                }
            }
        }
    }
    assert!(builds >= 7, "{builds}");
}

#[test]
fn nothing_is_installed_before_it_is_built() {
    let dest = tempfile::tempdir().unwrap();
    let said = make("install", dest.path(), &["ringway=/nowhere/ringway"]);
    assert_ne!(said.code, Some(0));
    said.says("run make build first");
    assert!(files(dest.path()).is_empty());
}

#[test]
fn the_installed_scripts_work_where_they_are() {
    let dest = tempfile::tempdir().unwrap();
    make("install", dest.path(), &[]).with(0);
    let host = super::host::Host::new(4, 16, 1);
    let apply = dest.path().join("usr/local/share/ringway/tuning/apply.sh");
    run(Command::new(&apply).arg("--root").arg(host.path("")).arg("--persist")).with(0);
    let unit = host.read("etc/systemd/system/ringway-tuning.service");
    assert!(unit.contains(&format!("ExecStart={} --profile small", apply.display())), "{unit}");
}

#[test]
fn make_tune_passes_on_what_it_is_given() {
    let host = super::host::Host::new(4, 16, 1);
    let before = host.everything();
    let tune = format!("TUNE=--dry-run --profile standard --root {}", host.path("").display());
    make("tune", Path::new(""), &[&tune]).with(0).says("profile standard, 300000 connections");
    assert!(host.everything() == before);
}

#[test]
fn the_installed_settings_are_settings_that_serve_takes() {
    let dest = tempfile::tempdir().unwrap();
    make("install", dest.path(), &[]).with(0);
    let file = dest.path().join("usr/local/share/ringway/ringway.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    run(command.args(["serve", "--print-config", "--config"]).arg(&file)).with(0).says("127.0.0.1:7400");
    // And with what it offers in comments: all but the two keys, of which one is to be chosen.
    let text = std::fs::read_to_string(&file).unwrap().replace("#[auth]", "[auth]").replace("#hs256", "hs256");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    run(command.args(["serve", "--print-config", "--config"]).arg(&file)).with(0).says("/etc/ringway/tokens.secret");
}

#[test]
fn systemd_understands_the_units_and_finds_little_that_they_expose() {
    let dest = tempfile::tempdir().unwrap();
    make("install", dest.path(), &[]).with(0);
    let host = super::host::Host::new(4, 16, 1);
    host.run("apply.sh", &["--persist"]).with(0);
    let unit = dest.path().join("usr/local/lib/systemd/system/ringway.service");
    let text = std::fs::read_to_string(&unit).unwrap();
    // It looks for what is started: there is only the binary under test.
    std::fs::write(&unit, text.replace("/usr/local/bin/ringway", env!("CARGO_BIN_EXE_ringway"))).unwrap();
    let drop_in = unit.with_file_name("ringway.service.d");
    std::fs::create_dir(&drop_in).unwrap();
    std::fs::copy(host.path("etc/systemd/system/ringway.service.d/90-tuning.conf"), drop_in.join("tuning.conf"))
        .unwrap();
    for unit in [&unit, &host.path("etc/systemd/system/ringway-tuning.service")] {
        let said = run(Command::new("systemd-analyze").args(["verify", "--man=no", "--recursive-errors=no"]).arg(unit))
            .with(0);
        assert_eq!(said.text, "", "it has something to say of {}", unit.display());
    }
    // 10 is a service that may do anything; the threshold is a tenth of a point: 1.7 at most.
    let mut command = Command::new("systemd-analyze");
    run(command.args(["security", "--offline=true", "--threshold=17", "--no-pager"]).arg(&unit)).with(0);
}
