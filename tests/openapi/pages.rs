//! The pages that need no capability: what a server can say on them, held against their schemas.
use super::support::{request, Server};
use super::{check, document, fits, names, object};
use serde_json::Value;
use std::collections::BTreeSet;
use svc_wallet::control::{health_body, Dep, Readiness, Version, SERVICE};

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
    readiness.pressure(Some("too much"));
    let pressed = readiness.snapshot();
    readiness.drain();
    let draining = readiness.snapshot();
    check(&document, "Readyz", &[ready.body.as_bytes().into(), ready.body_with_reasons.as_bytes().into()]);
    // The reasons are on the control port alone, so they are no key that every reply has.
    let unready = [starting, pressed, draining].map(|snapshot| [snapshot.body, snapshot.body_with_reasons]);
    let unready: Vec<Vec<u8>> = unready.iter().flatten().map(|body| body.as_bytes().into()).collect();
    check(&document, "NotReady", &unready);
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
