//! What all cores of the service share, as it is configured.
use super::service::{random_words, SERVICE};
use super::{health_body, Readiness, SharedVersion};
use crate::access::{PolicyBoard, RevocationBoard, RootBoard};
use crate::api::Route;
use crate::config::Config;
use crate::engine::Gate;
use crate::http;
use crate::telemetry::SpanFeed;
use crate::worker::{self, Admission, Ceilings, Disturbance, SharedGate, SharedQuotas, Site};
use std::sync::atomic::AtomicUsize;
use std::sync::Arc;

/// Verified tokens that one core remembers.
const TOKENS_MAX: usize = 16_384;

/// The site of a service that is configured so.
pub(super) fn site(
    config: &Config,
    (revocations, roots): (Arc<RevocationBoard>, Arc<RootBoard>),
    (policy, disturbance): (Arc<PolicyBoard>, Arc<Disturbance>),
    readiness: &Readiness,
    version: SharedVersion,
    log_id: crate::domain::LogId,
    spans: Option<SpanFeed>,
) -> Site {
    let ready = readiness.clone();
    let [process, ..] = random_words();
    Site {
        admission: Ceilings::new(config.limits.inflight, |route| config.limits.inflight_of(route.as_str())),
        gate: SharedGate::new(Gate::Open),
        cores_finished: AtomicUsize::new(0),
        audience: config.security.audience.clone(),
        clock_leeway: config.security.clock_leeway,
        revocations,
        roots,
        tokens_max: TOKENS_MAX,
        policy,
        quotas: SharedQuotas::default(),
        disturbance,
        log_id,
        http_limits: http::Limits {
            body_bytes_max: config.limits.body_bytes_max,
            decompress_ratio_max: config.limits.decompress_ratio_max as usize,
            ..http::Limits::default()
        },
        pipeline_depth: config.limits.pipeline_depth,
        connections: Admission::new(config.limits.connections),
        large_input: Arc::new(Admission::new(worker::LARGE_INPUT_BYTES_MAX)),
        timeouts: worker::Timeouts { read: config.timeouts.read, write: config.timeouts.write, idle: config.timeouts.idle },
        process,
        spans,
        control_plane: Box::new(move |route| match route {
            Route::Readyz => {
                let snapshot = ready.snapshot();
                worker::ControlReply { status: snapshot.status, body: snapshot.body, retry_after: snapshot.retry_after }
            }
            Route::Version => worker::ControlReply { status: 200, body: version.body().into(), retry_after: None },
            _ => worker::ControlReply { status: 200, body: health_body(SERVICE).into(), retry_after: None },
        }),
    }
}
