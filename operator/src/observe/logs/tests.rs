//! Logs and traces at a collector that speaks OTLP over gRPC.

use std::sync::Mutex;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use tracing::{debug, info, info_span};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_span_and_a_line_of_the_log_arrive_at_the_collector() {
    let (collector, endpoint) = Collector::start().await;
    let options = LogOptions {
        format: Format::Text,
        filter: "info".to_owned(),
        otlp_endpoint: Some(endpoint),
        instance: "operator-7".to_owned(),
    };
    let (dispatch, logs) = Logs::build(&options, io::sink).unwrap();
    tracing::dispatcher::with_default(&dispatch, || {
        let _span = info_span!("reconcile", server = "edge").entered();
        info!(agents = 3, "the fleet is planned");
        debug!("too small to be told");
        tracing::info!(target: "h2::codec", "the exporter's own transport");
    });
    logs.finish().await;

    let spans = collector.spans.lock().unwrap();
    let span = &spans[0].resource_spans[0].scope_spans[0].spans[0];
    assert_eq!(span.name, "reconcile");
    assert!(span.attributes.iter().any(|attribute| attribute.key == "server"));
    let resource = spans[0].resource_spans[0].resource.as_ref().unwrap();
    let instance = resource.attributes.iter().find(|attribute| attribute.key == "service.instance.id").unwrap();
    assert_eq!(instance.value.as_ref().unwrap().value, Some(Value::StringValue("operator-7".to_owned())));

    let records = collector.records.lock().unwrap();
    let records: Vec<_> = records.iter().flat_map(|request| &request.resource_logs).collect();
    let records: Vec<_> = records.iter().flat_map(|logs| &logs.scope_logs[0].log_records).collect();
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0].body.as_ref().unwrap().value, Some(Value::StringValue("the fleet is planned".to_owned())));
    assert_eq!(records[0].trace_id, span.trace_id, "the line belongs to the span");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_not_there_delays_the_end_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let options = LogOptions {
        format: Format::Json,
        filter: "info".to_owned(),
        otlp_endpoint: Some(endpoint),
        instance: "test".to_owned(),
    };
    let (dispatch, logs) = Logs::build(&options, io::sink).unwrap();
    let began = std::time::Instant::now();
    tracing::dispatcher::with_default(&dispatch, || {
        for number in 0..10_000 {
            info!(number, "nobody hears this");
        }
    });
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    logs.finish().await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn a_bad_filter_or_endpoint_is_one_sentence() {
    let options =
        LogOptions { format: Format::Text, filter: "x=y=z".to_owned(), otlp_endpoint: None, instance: String::new() };
    let said = Logs::build(&options, io::sink).expect_err("no filter").to_string();
    assert!(said.starts_with("log filter \"x=y=z\": "), "{said}");
    let options = LogOptions { filter: "info".to_owned(), otlp_endpoint: Some("http://[".to_owned()), ..options };
    let said = Logs::build(&options, io::sink).expect_err("no endpoint").to_string();
    assert!(said.starts_with("OTLP endpoint \"http://[\": "), "{said}");
}

#[derive(Default)]
struct Collector {
    spans: Mutex<Vec<ExportTraceServiceRequest>>,
    records: Mutex<Vec<ExportLogsServiceRequest>>,
}

impl Collector {
    async fn start() -> (Arc<Self>, String) {
        let collector = Arc::new(Self::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::from_arc(Arc::clone(&collector)))
            .add_service(LogsServiceServer::from_arc(Arc::clone(&collector)))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        (collector, endpoint)
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.spans.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.records.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}
