//! Sends the spans of sampled requests to a collector, over OTLP and gRPC.
//!
//! Spans wait in a bounded queue and leave in batches. A collector that is away costs the spans, never a request: what does not fit into
//! the queue, or is refused, is counted and gone.

pub(crate) mod messages;

use super::metrics::{SPANS_DROPPED, SPANS_SENT};
use crate::config::TraceConfig;
use crate::failure::Failure;
use messages::{
    AnyValue, ExportTraceServiceRequest, ExportTraceServiceResponse, KeyValue, Resource, ResourceSpans, ScopeSpans, Span, Status,
};
use metadb_proto::seam;
use metadb_telemetry::Counter;
use metadb_telemetry::trace::{self, Finished, Sink};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

/// The method of the collector.
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Spans that wait to be sent; some hundred sampled requests of one moment.
const QUEUE_SPANS: usize = 8192;
/// Spans in one message: well below the 4 MiB that collectors take.
const BATCH_SPANS: usize = 1024;
/// How long spans wait for company.
const BATCH_EVERY: Duration = Duration::from_millis(500);
/// How long a collector may take to answer.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a collector that does not answer is told of in the log.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// OpenTelemetry's numbers: a span within a process, of a server, of a client; an error.
const INTERNAL: i32 = 1;
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const FAILED: i32 = 2;

struct Queue {
    spans: mpsc::Sender<Finished>,
    /// A request is followed if its random number is below this.
    below: u64,
    dropped: Counter,
}

impl Sink for Queue {
    fn random(&self) -> u64 {
        seam::random_u64()
    }

    fn samples(&self) -> bool {
        self.below == u64::MAX || seam::random_u64() < self.below
    }

    fn take(&self, span: Finished) {
        if self.spans.try_send(span).is_err() {
            self.dropped.increment(1);
        }
    }
}

/// Starts to follow requests, if the settings name a collector. Within the runtime.
pub(crate) fn start(config: &TraceConfig, node_id: u64) -> Result<(), Failure> {
    if config.otlp_endpoint.is_empty() {
        return Ok(());
    }
    let endpoint = endpoint(&config.otlp_endpoint)?;
    let (spans, waiting) = mpsc::channel(QUEUE_SPANS);
    let sink = Queue { spans, below: threshold(config.sample_ratio), dropped: SPANS_DROPPED.counter(&[]) };
    if trace::install(Box::new(sink)).is_err() {
        return Err(Failure::failed("requests are followed already"));
    }
    let exporter = Exporter {
        channel: endpoint.connect_lazy(),
        resource: resource(node_id),
        clock: (Instant::now(), seam::unix_ms()),
        sent: SPANS_SENT.counter(&[]),
        dropped: SPANS_DROPPED.counter(&[]),
        complained: None,
    };
    tokio::spawn(exporter.run(waiting));
    Ok(())
}

/// Checks the address of a collector.
pub(crate) fn endpoint(address: &str) -> Result<Endpoint, Failure> {
    let wrong = || Failure::usage(format!("invalid setting trace.otlp_endpoint: must be http://host:port, is {address:?}"));
    if !address.starts_with("http://") {
        return Err(wrong());
    }
    Endpoint::from_shared(address.to_owned()).map(|endpoint| endpoint.timeout(EXPORT_TIMEOUT)).map_err(|_| wrong())
}

#[expect(clippy::cast_possible_truncation, reason = "a part of all 64-bit numbers: casts of floats saturate")]
fn threshold(ratio: f64) -> u64 {
    (ratio.clamp(0.0, 1.0) * u64::MAX as f64) as u64
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { string_value: Some(value.to_owned()) }) }
}

fn resource(node_id: u64) -> Resource {
    let attributes =
        [("service.name", "cairn".to_owned()), ("service.version", crate::node::build()), ("service.instance.id", node_id.to_string())];
    Resource { attributes: attributes.iter().map(|(key, value)| text(key, value)).collect() }
}

struct Exporter {
    channel: Channel,
    resource: Resource,
    /// The same moment by both clocks.
    clock: (Instant, u64),
    sent: Counter,
    dropped: Counter,
    complained: Option<Instant>,
}

impl Exporter {
    /// Sends what comes until nobody can send any more.
    async fn run(mut self, mut waiting: mpsc::Receiver<Finished>) {
        let mut batch = Vec::new();
        while waiting.recv_many(&mut batch, BATCH_SPANS).await > 0 {
            if batch.len() < BATCH_SPANS {
                tokio::time::sleep(BATCH_EVERY).await;
                while batch.len() < BATCH_SPANS
                    && let Ok(span) = waiting.try_recv()
                {
                    batch.push(span);
                }
            }
            self.send(std::mem::take(&mut batch)).await;
        }
    }

    async fn send(&mut self, spans: Vec<Finished>) {
        let count = spans.len() as u64;
        let spans = spans.into_iter().map(|span| encode(span, self.clock)).collect();
        let of_process = ResourceSpans { resource: Some(self.resource.clone()), scope_spans: vec![ScopeSpans { spans }] };
        match self.export(ExportTraceServiceRequest { resource_spans: vec![of_process] }).await {
            Ok(()) => self.sent.increment(count),
            Err(status) => {
                self.dropped.increment(count);
                if self.complained.is_none_or(|at| at.elapsed() > COMPLAIN_EVERY) {
                    self.complained = Some(Instant::now());
                    tracing::warn!(%status, "the collector of traces takes none; they are dropped");
                }
            }
        }
    }

    async fn export(&self, request: ExportTraceServiceRequest) -> Result<(), tonic::Status> {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let codec = tonic_prost::ProstCodec::<ExportTraceServiceRequest, ExportTraceServiceResponse>::default();
        let path = http::uri::PathAndQuery::from_static(EXPORT);
        client.unary(tonic::Request::new(request), path, codec).await.map(|_| ())
    }
}

fn encode(span: Finished, clock: (Instant, u64)) -> Span {
    let kind = match (span.name, span.parent) {
        (_, None) => CLIENT,
        ("node", _) => SERVER,
        _ => INTERNAL,
    };
    Span {
        trace_id: span.context.trace_id.to_be_bytes().to_vec(),
        span_id: span.context.span_id.to_be_bytes().to_vec(),
        parent_span_id: span.parent.map(|parent| parent.to_be_bytes().to_vec()).unwrap_or_default(),
        name: span.name.to_owned(),
        kind,
        start_time_unix_nano: unix_nanos(span.started, clock),
        end_time_unix_nano: unix_nanos(span.ended, clock),
        attributes: span.attributes.iter().map(|(key, value)| text(key, value)).collect(),
        status: span.failure.map(|message| Status { message, code: FAILED }),
    }
}

fn unix_nanos(moment: Instant, (then, then_ms): (Instant, u64)) -> u64 {
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let base = then_ms.saturating_mul(1_000_000);
    match moment.checked_duration_since(then) {
        Some(after) => base.saturating_add(nanos(after)),
        None => base.saturating_sub(nanos(then.saturating_duration_since(moment))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_a_part_of_all_numbers() {
        assert_eq!((threshold(0.0), threshold(1.0), threshold(7.0), threshold(-1.0)), (0, u64::MAX, u64::MAX, 0));
        assert!((threshold(0.5) as f64 / u64::MAX as f64 - 0.5).abs() < 1e-9);
    }

    #[test]
    fn moments_before_and_after_the_start_have_their_time() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(unix_nanos(now + second, (now, 5000)), 6_000_000_000);
        assert_eq!(unix_nanos(now, (now + second, 5000)), 4_000_000_000);
    }

    #[test]
    fn a_collector_has_a_plain_address() {
        assert!(endpoint("http://127.0.0.1:4317").is_ok());
        assert!(endpoint("127.0.0.1:4317").is_err() && endpoint("https://collector").is_err());
    }
}
