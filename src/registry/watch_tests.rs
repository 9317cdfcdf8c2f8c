//! The thread against registries that fail, lie and come back: what is in force, what is told, and how often it asks.
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::config::RegistryDep;
use crate::registry::fake::{reply, topology, write, Fake};

const SECOND: Duration = Duration::from_secs(1);

fn watch(url: &str) -> Watch {
    let source = Source::new(&RegistryDep::Http(url.to_owned()), SECOND, SECOND).unwrap();
    Watch::start(source, SECOND).unwrap()
}

fn eventually(watch: &Watch, what: &str, is: impl Fn(&Standing) -> bool) -> Standing {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let standing = watch.standing();
        if is(&standing) {
            return standing;
        }
        assert!(Instant::now() < deadline, "{what}: {standing:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn version(standing: &Standing) -> u64 {
    standing.topology.as_ref().map_or(0, |topology| topology.version())
}

#[test]
fn a_registry_that_fails_is_asked_ever_more_rarely() {
    let fake = Fake::start(|_, _, stream| write(stream, &reply("503 Service Unavailable", "t", "")));
    let started = Instant::now();
    let watch = watch(fake.url());
    eventually(&watch, "six questions", |standing| standing.outcomes[Outcome::Refused as usize] >= 6);
    // The shortest pauses that there are: the lower halves of 200, 400 and 800 ms, and then of a second each.
    let shortest = |questions: usize| {
        Duration::from_millis([0, 0, 100, 300, 700, 1_200][questions.min(5)]) + SECOND / 2 * questions.saturating_sub(5) as u32
    };
    let (asked, took) = (fake.asked(), started.elapsed());
    assert!(took >= shortest(asked - 1), "{asked} questions within {took:?}");
    let standing = watch.standing();
    assert!(standing.topology.is_none() && standing.trouble.as_deref() == Some("it answers with status 503"), "{standing:?}");
    assert!(standing.heard < started + SECOND, "a bad answer is not heard");
}

#[test]
fn lies_change_nothing_and_a_good_answer_ends_the_trouble() {
    let stage = Arc::<AtomicUsize>::default();
    let at = stage.clone();
    let fake = Fake::start(move |_, _, stream| {
        let answer = match at.load(Ordering::SeqCst) {
            0 => reply("200 OK", "five", &topology(5)),
            1 => reply("200 OK", "four", &topology(4)),
            2 => reply("200 OK", "other", &topology(5).replace("\"a\"", "\"b\"")),
            3 => reply("200 OK", "x", "garbage"),
            _ => reply("200 OK", "six", &topology(6)),
        };
        write(stream, &answer);
    });
    let watch = watch(fake.url());
    let first = eventually(&watch, "the first topology", |standing| version(standing) == 5);
    assert!(first.trouble.is_none());
    for (lie, reason) in [(1, "has version 4, but 5 is in force"), (2, "still has version 5"), (3, "is not of the form")] {
        stage.store(lie, Ordering::SeqCst);
        let told =
            eventually(&watch, reason, |standing| standing.trouble.as_ref().is_some_and(|trouble| trouble.contains(reason)));
        let cell = told.topology.as_ref().unwrap().owner(0).name.clone();
        assert_eq!((version(&told), cell.as_str()), (5, "a"));
        let later = eventually(&watch, "another lie", |standing| {
            standing.outcomes[Outcome::Refused as usize] > told.outcomes[Outcome::Refused as usize]
        });
        assert_eq!(later.heard, told.heard, "a lie is not heard");
    }
    stage.store(4, Ordering::SeqCst);
    let mended = eventually(&watch, "the newer topology", |standing| version(standing) == 6);
    assert!(mended.trouble.is_none() && mended.heard > first.heard);
}

#[test]
fn a_look_is_a_question_at_once() {
    let fake = Fake::start(|_, head, stream| {
        let answer = if head.to_lowercase().contains("if-none-match") {
            "HTTP/1.1 304 Not Modified\r\n\r\n".to_owned()
        } else {
            reply("200 OK", "t", &topology(1))
        };
        write(stream, &answer);
    });
    let hour = 3_600 * SECOND;
    let watch = Watch::start(Source::new(&RegistryDep::Http(fake.url().to_owned()), SECOND, hour).unwrap(), hour).unwrap();
    eventually(&watch, "two good answers", |standing| standing.outcomes[Outcome::Unchanged as usize] == 1);
    watch.look();
    let looked = eventually(&watch, "a third one", |standing| standing.looks == 1);
    assert_eq!(looked.outcomes, [1, 2, 0, 0]);
}

#[test]
fn a_file_is_there_from_the_start_or_refused_and_a_change_is_noticed() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("registry.json");
    let source = || Source::new(&RegistryDep::File(path.clone()), SECOND, SECOND).unwrap();
    assert!(matches!(Watch::start(source(), SECOND), Err(StartFault::Bad(why)) if why.contains("cannot read the registry")));
    let replace = |text: &str| {
        let beside = place.path().join("new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, &path).unwrap();
    };
    replace(&topology(1));
    let watch = Watch::start(source(), SECOND).unwrap();
    assert_eq!(version(&watch.standing()), 1);
    replace(&topology(2));
    eventually(&watch, "the newer file", |standing| version(standing) == 2);
    replace("{");
    eventually(&watch, "a bad file", |standing| standing.trouble.is_some());
    assert_eq!(version(&watch.standing()), 2);
    replace(&topology(3));
    watch.look();
    eventually(&watch, "the mended file", |standing| version(standing) == 3 && standing.trouble.is_none());
}
