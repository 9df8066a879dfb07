#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn a_second_gateway_on_the_same_directory_is_refused_until_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let first = DataDir::lock(dir.path()).unwrap();
    let error = DataDir::lock(dir.path()).unwrap_err();
    assert!(matches!(error, DataDirError::InUse(_)), "{error}");
    drop(first);
    DataDir::lock(dir.path()).unwrap();
}

#[test]
fn a_file_where_the_directory_should_be_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "x").unwrap();
    let error = DataDir::lock(&path).unwrap_err();
    assert!(matches!(error, DataDirError::Unwritable { .. }), "{error}");
    assert!(error.to_string().contains("--data-dir"), "{error}");
}

#[test]
fn a_replaced_file_is_whole_and_private_and_one_that_cannot_be_written_keeps_its_content() {
    let dir = tempfile::tempdir().unwrap();
    let files = || fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    replace_file(dir.path(), "facts", "a long first text").unwrap();
    replace_file(dir.path(), "facts", "second").unwrap();
    assert_eq!((fs::read_to_string(dir.path().join("facts")).unwrap().as_str(), files().len()), ("second", 1));
    assert_eq!(fs::metadata(dir.path().join("facts")).unwrap().permissions().mode() & 0o777, 0o600);
    fs::create_dir(dir.path().join("facts.new")).unwrap();
    replace_file(dir.path(), "facts", "third").unwrap_err();
    assert_eq!(fs::read_to_string(dir.path().join("facts")).unwrap(), "second");
}

#[test]
fn the_development_secret_is_private_and_stays_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = DataDir::lock(dir.path()).unwrap();
    assert_eq!(read_development_secret(dir.path()).unwrap(), None);
    let (secret, origin) = data_dir.development_secret().unwrap();
    assert_eq!((secret.len(), origin), (64, SecretOrigin::Made));
    assert_eq!(data_dir.development_secret().unwrap(), (secret.clone(), SecretOrigin::Found));
    assert_eq!(read_development_secret(dir.path()).unwrap(), Some(secret));
    let mode = fs::metadata(dir.path().join(SECRET)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
