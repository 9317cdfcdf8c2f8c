//! Spans in the form in which a collector takes them: an ExportTraceServiceRequest of OTLP 1, as JSON. Numbers of 64 bits are texts there,
//! ids hexadecimal digits.
use crate::domain::hex;
use crate::telemetry::Span;
use serde_json::{json, Value};

/// The kind of a span of somebody who answers a request.
const KIND_SERVER: u8 = 2;
/// The status of a span whose request has failed by the fault of whoever answers it.
const STATUS_ERROR: u8 = 2;
const NANOS_PER_MICRO: u64 = 1_000;

/// Who sends spans.
pub(super) struct Resource {
    /// `service.name`.
    pub service: &'static str,
    /// `service.version`.
    pub version: &'static str,
    /// `service.instance.id`: tells this process from others.
    pub instance: String,
}

/// The body of a request with these spans.
pub(super) fn request(resource: &Resource, spans: &[Span]) -> Value {
    let Resource { service, version, instance } = resource;
    let attributes = [text("service.name", service), text("service.version", version), text("service.instance.id", instance)];
    let spans: Vec<Value> = spans.iter().map(span).collect();
    let scoped = json!({"scope": {"name": "svc_wallet", "version": version}, "spans": spans});
    json!({"resourceSpans": [{"resource": {"attributes": attributes}, "scopeSpans": [scoped]}]})
}

fn span(span: &Span) -> Value {
    let nanos = |micros: u64| micros.saturating_mul(NANOS_PER_MICRO).to_string();
    let mut attributes = vec![
        text("http.request.method", span.method),
        number("http.response.status_code", u64::from(span.status)),
        text("wallet.route", span.route),
        text("wallet.corr_id", &span.corr),
    ];
    attributes.extend(span.owner.map(|core| number("wallet.core", u64::from(core))));
    let status = if span.status >= 500 { json!({"code": STATUS_ERROR}) } else { json!({}) };
    json!({
        "traceId": hex(&span.trace),
        "spanId": hex(&span.id),
        "parentSpanId": hex(&span.parent),
        "name": format!("{} {}", span.method, span.route),
        "kind": KIND_SERVER,
        "startTimeUnixNano": nanos(span.began_us),
        "endTimeUnixNano": nanos(span.began_us.saturating_add(span.took_us)),
        "attributes": attributes,
        "status": status,
    })
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn number(key: &str, value: u64) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}
