//! The pages that need no capability: what a server can say on them, held against their schemas.
use super::support::{request, Server};
use super::{check, document, fits, names, object};
use serde_json::Value;
use std::collections::BTreeSet;
use svc_wallet::control::{health_body, Dep, Readiness, Snapshot, Version, SERVICE};

#[test]
fn the_pages_have_the_fields_that_are_written() {
    let document = document();
    check(&document, "Healthz", &[health_body(SERVICE).into()]);
    let fresh = Version::new(SERVICE, Vec::new(), "io_uring", None);
    let mut loaded = Version::new(SERVICE, vec!["tor"], "epoll", Some("io_uring is disabled".to_owned()));
    (loaded.policy_version, loaded.registry_version) = (Some(3), Some(4));
    check(&document, "Version", &[fresh, loaded].map(|version| version.body().into()));
    let readiness = Readiness::new();
    let starting = readiness.snapshot();
    Dep::ALL.into_iter().for_each(|dep| readiness.up(dep));
    readiness.recovered();
    let ready = readiness.snapshot();
    readiness.note_faults(vec!["every commit is late".to_owned()]);
    readiness.note_audit(Some("its disk is full".to_owned()));
    let noted = readiness.snapshot();
    readiness.stand_by(true);
    let standing_by = readiness.snapshot();
    readiness.stand_by(false);
    readiness.pressure(Some("too much"));
    let pressed = readiness.snapshot();
    readiness.take_out_of_rotation(true);
    let out = readiness.snapshot();
    readiness.drain();
    let draining = readiness.snapshot();
    // The reasons, faults and the audit are on the control port alone, so they are no keys that every reply has.
    let bodies = |snapshots: &[Snapshot]| -> Vec<Vec<u8>> {
        snapshots.iter().flat_map(|one| [&one.body, &one.body_with_reasons]).map(|body| body.as_bytes().into()).collect()
    };
    check(&document, "Readyz", &bodies(&[ready, noted]));
    let unready = bodies(&[starting, standing_by, pressed, out, draining]);
    check(&document, "NotReady", &unready);
    let mut told = BTreeSet::new();
    for body in &unready {
        let reply: Value = serde_json::from_slice(body).unwrap();
        told.extend(reply["reasons"].as_object().into_iter().flat_map(|reasons| reasons.keys().cloned()));
    }
    let known = &document["components"]["schemas"]["NotReady"]["properties"]["reasons"]["properties"];
    assert_eq!(told, object(known).keys().cloned().collect::<BTreeSet<String>>());
}

/// A running server, on both of its ports: nothing between the makers of the pages and the wire adds a field or drops one.
#[test]
fn a_server_serves_the_pages_that_are_told() {
    let document = document();
    let server = Server::start();
    let mut client = server.connect();
    for (path, name) in [("/healthz", "Healthz"), ("/readyz", "Readyz"), ("/version", "Version")] {
        let schema = &document["components"]["schemas"][name];
        let response = &document["components"]["responses"][name];
        let by_client = client.call(&request("GET", path)).ok();
        for header in object(&response["headers"]).keys() {
            assert!(by_client.header(header).is_some(), "{path} lacks {header}: {by_client}");
        }
        for reply in [by_client, server.page(path)] {
            let body: Value = reply.json();
            let keys: BTreeSet<String> = object(&body).keys().cloned().collect();
            assert!(names(&schema["required"]).is_subset(&keys), "{path}: {body}");
            for (key, value) in object(&body) {
                let known = schema["properties"].get(key).unwrap_or_else(|| panic!("{path}: {key} is served and not told"));
                assert!(fits(&document, known, value), "{path}: {key} is {value}");
            }
        }
    }
}
