use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::keyring::tests::{ids, key, keys};

#[test]
fn a_directory_as_kubernetes_mounts_it_is_followed_through_its_swaps() {
    let dir = tempfile::tempdir().unwrap();
    mount(dir.path(), 1, &[("secretkey", "A")]);
    let mut files = open(dir.path());
    assert_eq!(files.sourced, good("A"));

    mount(dir.path(), 2, &[("secretkey", "B")]);
    files.read();
    assert_eq!(files.sourced, good("B"), "replaced");

    mount(dir.path(), 3, &[("secretkey", "B"), ("another", "C")]);
    files.read();
    assert_eq!(files.sourced, good("CB"), "another one is newer, whatever its name");

    mount(dir.path(), 4, &[("another", "C")]);
    files.read();
    assert_eq!(files.sourced, good("C"), "removed");

    mount(dir.path(), 5, &[("secretkey", "B"), ("another", "C")]);
    files.read();
    assert_eq!(files.sourced, good("BC"), "what comes back is the newest");
}

#[test]
fn at_the_start_the_entries_of_a_mounted_secret_are_ordered_by_name() {
    let dir = tempfile::tempdir().unwrap();
    mount(dir.path(), 1, &[("secretkey", "B"), ("old-20261121", "A")]);

    assert_eq!(open(dir.path()).sourced, good("BA"));
}

#[test]
fn a_file_that_is_spoilt_keeps_its_last_good_key_and_is_complained_of_until_it_is_mended() {
    type Spoil = fn(&Path);
    let spoils: [(&str, Spoil); 5] = [
        ("the secret is empty", |path| fs::write(path, " \n").unwrap()),
        ("at most 65536 are allowed", |path| fs::write(path, vec![b'a'; 70_000]).unwrap()),
        ("there is no secret at", |path| fs::remove_file(path).unwrap()),
        ("it is no regular file", |path| {
            fs::remove_file(path).unwrap();
            symlink("/dev/null", path).unwrap();
        }),
        // Root reads whatever the mode says; a link to itself is read by nobody.
        ("cannot be read", |path| {
            fs::remove_file(path).unwrap();
            symlink(path, path).unwrap();
        }),
    ];
    for (complaint, spoil) in spoils {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secretkey");
        fs::write(&path, "A").unwrap();
        let mut files = open(&path);

        spoil(&path);
        for _ in 0..2 {
            files.read();
            assert_eq!(files.sourced.keys, keys("A"), "{complaint}");
            let [told] = &*files.sourced.complaints else { panic!("{:?}", files.sourced.complaints) };
            assert!(told.contains(complaint) && told.contains(path.to_str().unwrap()), "{told}");
            assert!(told.contains("the last key that was good stays in force"), "{told}");
        }

        let _ = fs::remove_file(&path);
        fs::write(&path, "B").unwrap();
        files.read();
        assert_eq!(files.sourced, good("B"), "{complaint}");
    }
}

#[test]
fn a_directory_that_loses_everything_keeps_its_last_good_keys() {
    type Spoil = fn(&Path);
    let spoils: [(&str, Spoil); 3] = [
        ("holds no key", |dir| {
            for name in ["a", "b"] {
                fs::remove_file(dir.join(name)).unwrap();
            }
        }),
        ("the secret is empty", |dir| {
            for name in ["a", "b"] {
                fs::write(dir.join(name), "").unwrap();
            }
        }),
        ("there is no secret at", |dir| fs::remove_dir_all(dir).unwrap()),
    ];
    for (complaint, spoil) in spoils {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("keys");
        fs::create_dir(&dir).unwrap();
        write(&dir, "a", "A");
        let mut files = open(&dir);
        write(&dir, "b", "B");
        files.read();
        assert_eq!(files.sourced, good("BA"));

        spoil(&dir);
        files.read();

        assert_eq!(files.sourced.keys, keys("BA"), "{complaint}");
        assert!(files.sourced.complaints.iter().all(|told| told.contains(complaint)), "{:?}", files.sourced.complaints);
        assert!(!files.sourced.complaints.is_empty());
        fs::create_dir_all(&dir).unwrap();
        write(&dir, "a", "C");
        let _ = fs::remove_file(dir.join("b"));
        files.read();
        assert_eq!(files.sourced, good("C"), "{complaint}");
    }
}

#[test]
fn a_spoilt_entry_does_not_spoil_the_others() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a", "A");
    let mut files = open(dir.path());

    write(dir.path(), "a", "");
    write(dir.path(), "b", "B");
    files.read();

    assert_eq!(files.sourced.keys, keys("BA"));
    assert_eq!(files.sourced.complaints.len(), 1);
}

#[test]
fn a_ninth_key_is_named_and_not_used() {
    let dir = tempfile::tempdir().unwrap();
    for letter in 'A'..='H' {
        write(dir.path(), &letter.to_string(), &letter.to_string());
    }
    let mut files = open(dir.path());
    assert_eq!(files.sourced.complaints, [] as [String; 0]);
    let before = files.sourced.keys.clone();

    write(dir.path(), "0-first-by-name", "I");
    files.read();

    assert_eq!(files.sourced.keys, before);
    let [told] = &*files.sourced.complaints else { panic!("{:?}", files.sourced.complaints) };
    assert!(told.contains("holds 9 keys") && told.contains("0-first-by-name"), "{told}");
    fs::remove_file(dir.path().join("A")).unwrap();
    files.read();
    assert_eq!(files.sourced, good("IHGFEDCB"));
}

#[test]
fn nothing_usable_at_the_start_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let start = |path: &Path| KeySource::start(path, "garpike", None).unwrap_err().to_string();

    assert!(start(dir.path()).contains("holds no key"), "{}", start(dir.path()));
    write(dir.path(), "secretkey", "\n");
    assert!(start(dir.path()).contains("secretkey cannot be used"), "{}", start(dir.path()));
    assert!(start(&dir.path().join("nowhere")).contains("there is no secret at"));
}

#[test]
fn a_cache_that_cannot_be_used_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "secretkey", "A");
    let start = |cache: &Path| KeySource::start(dir.path(), "garpike", Some(cache)).unwrap_err();

    assert!(matches!(start(dir.path()), KeySourceError::Cache { .. }), "retired keys would come back");
    let error = start(&dir.path().join("secretkey"));
    assert!(matches!(error, KeySourceError::Cache { .. }), "{error}");
    assert!(error.to_string().contains("secretkey"), "{error}");
}

#[test]
fn a_retired_key_survives_a_restart_while_it_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, cache) = (dir.path().join("secretkey"), dir.path().join("cache"));
    fs::write(&path, "A").unwrap();
    let mut files = with_cache(&path, &cache);

    fs::write(&path, "B").unwrap();
    files.read();
    let (source, ring) = KeySource::start(&path, "garpike", Some(&cache)).unwrap();
    assert_eq!(ring.ids(), ids("BA"), "the other process holds the old one as well");
    assert_eq!(*ring.newest(), key('B'));
    drop(source);

    files.forget_all_but(&ids("BA").into_iter().collect(), now());
    assert_eq!(cached(&cache), ids("A"));
    files.forget_all_but(&ids("B").into_iter().collect(), now());
    assert_eq!(cached(&cache), []);
}

#[test]
fn a_key_that_comes_back_needs_no_copy() {
    let dir = tempfile::tempdir().unwrap();
    let (path, cache) = (dir.path().join("secretkey"), dir.path().join("cache"));
    fs::write(&path, "A").unwrap();
    let mut files = with_cache(&path, &cache);
    fs::write(&path, "B").unwrap();
    files.read();

    fs::write(&path, "A").unwrap();
    files.read();
    files.forget_all_but(&ids("AB").into_iter().collect(), now());

    assert_eq!(cached(&cache), ids("B"));
}

#[test]
fn a_changed_file_is_read_at_once_however_it_is_changed() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 2] = [
        ("overwritten", |path| fs::write(path, "B").unwrap()),
        ("replaced", |path| {
            fs::write(path.with_extension("new"), "B").unwrap();
            fs::rename(path.with_extension("new"), path).unwrap();
        }),
    ];
    for (how, change) in changes {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secretkey");
        fs::write(&path, "A").unwrap();
        let (source, ring) = KeySource::start(&path, "garpike", None).unwrap();
        assert_eq!(ring.ids(), ids("A"));

        change(&path);

        wait(how, || source.keys.borrow().keys == keys("B"));
    }
}

#[test]
fn a_swap_by_the_kubelet_is_read_at_once_from_the_directory_and_from_an_entry() {
    for entry in ["", "secretkey"] {
        let dir = tempfile::tempdir().unwrap();
        mount(dir.path(), 1, &[("secretkey", "A")]);
        let path = if entry.is_empty() { dir.path().to_owned() } else { dir.path().join(entry) };
        let (source, _) = KeySource::start(&path, "garpike", None).unwrap();

        mount(dir.path(), 2, &[("secretkey", "B")]);

        wait(entry, || source.keys.borrow().keys == keys("B"));
    }
}

#[test]
fn the_cache_is_wiped_when_the_node_holds_the_key_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let (path, cache) = (dir.path().join("secretkey"), dir.path().join("cache"));
    fs::write(&path, "A").unwrap();
    let (source, _) = KeySource::start(&path, "garpike", Some(&cache)).unwrap();
    fs::write(&path, "B").unwrap();
    wait("kept", || cached(&cache) == ids("A"));

    source.set_held(ids("B"));
    // Any wake-up does it.
    fs::write(&path, "B\n").unwrap();

    wait("wiped", || cached(&cache).is_empty());
}

#[test]
fn reading_is_not_taken_for_a_change_and_other_files_are_none_of_ours() {
    let only = OsString::from("secretkey");
    let event = |kind, path: &str| Event::new(kind).add_path(PathBuf::from("/keys").join(path));
    let open = EventKind::Access(AccessKind::Open(AccessMode::Any));
    let written = EventKind::Access(AccessKind::Close(AccessMode::Write));

    assert!(is_own_reading(&event(open, "secretkey")));
    assert!(!is_own_reading(&event(written, "secretkey")));
    for (path, other) in [("secretkey", false), ("..data", false), ("secretkey.swp", true), ("noise", true)] {
        assert_eq!(is_of_another_file(&event(written, path), Some(&only)), other, "{path}");
        assert!(!is_of_another_file(&event(written, path), None), "{path}");
    }
    assert!(!is_of_another_file(&Event::new(written), Some(&only)), "an event without a path may be ours");
}

#[test]
fn the_log_is_told_of_a_complaint_once_in_ten_minutes() {
    let (mut log, now) = (Log::default(), instant());
    let complaints = ["a".to_owned(), "b".to_owned()];

    assert_eq!(log.due(&complaints, now).len(), 2);
    assert_eq!(log.due(&complaints, now + LOG_EVERY / 2).len(), 0);
    assert_eq!(log.due(&[], now + LOG_EVERY / 2).len(), 0);
    assert_eq!(log.due(&complaints, now + LOG_EVERY / 2).len(), 0, "one that flickers is told of once, too");
    assert_eq!(log.due(&complaints, now + LOG_EVERY).len(), 2);
}

fn open(path: &Path) -> KeyFiles {
    KeyFiles::new(path, "garpike", None).unwrap()
}

fn with_cache(path: &Path, cache: &Path) -> KeyFiles {
    KeyFiles::new(path, "garpike", Some(KeyCache::open(cache, "garpike", now()).unwrap())).unwrap()
}

fn cached(cache: &Path) -> Vec<KeyId> {
    let mut names: Vec<_> = fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "key"));
    let letters = names.iter().filter_map(|path| fs::read_to_string(path).ok());
    letters.flat_map(|letters| ids(&letters)).collect()
}

/// Writes a Secret as the kubelet does: a directory of its own, to which all links are turned at once.
fn mount(dir: &Path, version: u32, entries: &[(&str, &str)]) {
    let data = dir.join(format!("..version_{version}"));
    fs::create_dir(&data).unwrap();
    for (name, content) in entries {
        fs::write(data.join(name), content).unwrap();
    }
    symlink(data.file_name().unwrap(), dir.join("..data_tmp")).unwrap();
    fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    for (name, _) in entries {
        let _ = symlink(Path::new("..data").join(name), dir.join(name));
    }
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if !name.starts_with("..") && !entries.iter().any(|(entry, _)| *entry == name) {
            fs::remove_file(entry.path()).unwrap();
        } else if name.starts_with("..version") && entry.path() != data {
            fs::remove_dir_all(entry.path()).unwrap();
        }
    }
}

fn write(dir: &Path, name: &str, content: &str) {
    fs::write(dir.join(name), content).unwrap();
}

#[track_caller]
fn wait(what: &str, condition: impl Fn() -> bool) {
    let mut waited = Duration::ZERO;
    while !condition() {
        assert!(waited < Duration::from_secs(10), "{what:?} did not come to be");
        std::thread::sleep(Duration::from_millis(10));
        waited += Duration::from_millis(10);
    }
}

/// A source without faults that holds a key for each letter.
fn good(letters: &str) -> SourcedKeys {
    SourcedKeys { keys: keys(letters), complaints: Vec::new() }
}

#[expect(clippy::disallowed_methods, reason = "the times of files are those of the system")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
fn instant() -> Instant {
    Instant::now()
}
