//! One step on one file, interrupted at every stage, and a table of several steps: what is left is whole, and the next run ends it.
use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn session() -> steps::Session {
    steps::Session { custody: crate::access::Custody::beside(Path::new("/nonexistent")) }
}

fn older(path: &Path) -> Told {
    let found = Found { kind: "test", path: path.to_owned(), form: Form::Older(1) };
    Told { steps: steps::path(TABLE, "test", &found.form), found, backups: Vec::new(), failure: None }
}

fn longer(_: &steps::Session, path: &Path) -> Result<Vec<u8>, Failure> {
    let text = fs::read(path).map_err(|fault| Failure::internal(fault.to_string(), ""))?;
    Ok([b"longer ", &text[..]].concat())
}

const TABLE: &[Step] = &[
    Step { kind: "test", from: 2, to: 3, does: "lengthen it again", rewrite: longer },
    Step { kind: "test", from: 1, to: 2, does: "lengthen it", rewrite: longer },
    Step { kind: "other", from: 1, to: 2, does: "nothing", rewrite: longer },
];

fn names(place: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn steps_are_followed_from_version_to_version_each_with_its_backup() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("file");
    fs::write(&path, "text").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let mut one = older(&path);
    assert_eq!(one.steps.iter().map(|step| (step.from, step.to)).collect::<Vec<_>>(), [(1, 2), (2, 3)]);
    migrate(&session(), &mut one, &mut |_, _| Ok(())).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "longer longer text");
    assert_eq!(names(place.path()), ["file", "file.v1.bak", "file.v2.bak"]);
    for (name, text) in [("file.v1.bak", "text"), ("file.v2.bak", "longer text")] {
        let backup = place.path().join(name);
        assert_eq!(fs::read_to_string(&backup).unwrap(), text);
        assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o7777, 0o600);
    }
    assert!(steps::path(TABLE, "test", &Form::Older(7)).is_empty() && steps::path(TABLE, "none", &Form::Older(1)).is_empty());
    assert!(steps::path(TABLE, "test", &Form::Current(Some(1))).is_empty());
}

#[test]
fn a_run_that_is_cut_short_at_any_stage_leaves_a_whole_file_and_can_be_repeated() {
    for stage in [Stage::BackingUp, Stage::BackedUp, Stage::Written, Stage::InPlace] {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        fs::write(&path, "text").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let mut cut = |at: Stage, _: &Path| if at == stage { Err(Failure::internal("killed", "")) } else { Ok(()) };
        let told = migrate(&session(), &mut older(&path), &mut cut).unwrap_err();
        assert_eq!(told.message, "killed");
        let now = fs::read_to_string(&path).unwrap();
        assert_eq!(now, if stage == Stage::InPlace { "longer text" } else { "text" }, "{stage:?}");
        // What a survey would find now is what the next run begins with.
        let mut again = older(&path);
        if stage == Stage::InPlace {
            again.steps.remove(0);
        }
        migrate(&session(), &mut again, &mut |_, _| Ok(())).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "longer longer text", "{stage:?}");
        assert_eq!(names(place.path()), ["file", "file.v1.bak", "file.v2.bak"], "{stage:?}");
        assert_eq!(fs::read_to_string(place.path().join("file.v1.bak")).unwrap(), "text", "{stage:?}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640, "{stage:?}");
    }
}

#[test]
fn a_backup_is_never_written_over() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("file");
    for (text, backups) in [("one", 1), ("two", 2), ("one", 2), ("six", 3)] {
        fs::write(&path, text).unwrap();
        let mut one = older(&path);
        one.steps.truncate(1);
        migrate(&session(), &mut one, &mut |_, _| Ok(())).unwrap();
        assert_eq!(fs::read_to_string(&one.backups[0]).unwrap(), text);
        assert_eq!(names(place.path()).iter().filter(|name| name.ends_with(".bak")).count(), backups, "{text}");
    }
}
