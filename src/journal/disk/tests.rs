#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::os::unix::fs::MetadataExt;

use super::*;

#[test]
fn a_new_file_is_zeroes_that_have_their_place_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Directory::open(directory.path()).unwrap();
    let file = disk.create("a", 1 << 20).unwrap();
    assert_eq!(file.size().unwrap(), 1 << 20);
    let on_disk = fs::metadata(directory.path().join("a")).unwrap().blocks() * 512;
    assert!(on_disk >= 1 << 20, "{on_disk} bytes are allocated");
    let mut bytes = vec![1; 1 << 20];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), 1 << 20);
    assert!(bytes.iter().all(|byte| *byte == 0));
}

#[test]
fn what_was_written_is_read_up_to_the_end_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Directory::open(&directory.path().join("not").join("there")).unwrap();
    let file = disk.create("a", 100).unwrap();
    file.write_at(95, b"hello").unwrap();
    file.sync().unwrap();
    let mut bytes = [0; 20];
    assert_eq!(disk.open("a").unwrap().read_at(93, &mut bytes).unwrap(), 7);
    assert_eq!(&bytes[..7], b"\0\0hello");
    assert_eq!(file.size().unwrap(), 100, "writing within the file does not make it longer");
}

#[test]
fn names_are_taken_once_listed_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Directory::open(directory.path()).unwrap();
    disk.create("a", 10).unwrap();
    assert_eq!(disk.create("a", 10).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(disk.list().unwrap(), ["a"]);
    disk.remove("a").unwrap();
    assert!(disk.list().unwrap().is_empty());
    assert_eq!(disk.open("a").unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_file_that_finds_no_room_leaves_no_name_behind() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Directory::open(directory.path()).unwrap();
    // Larger than any file system here.
    disk.create("a", 1 << 60).unwrap_err();
    assert!(disk.list().unwrap().is_empty());
}

#[test]
fn a_directory_that_must_be_there_is_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    assert_eq!(Directory::existing(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(!path.exists());
}
