//! Structured logs with a filter that changes at run time, and, when asked for, traces and logs over OTLP.
//!
//! ```text
//!   spans, events ──▶ filter (reloadable) ──┬──▶ standard output, text or JSON
//!                                           ├──▶ OTLP logs   ┐ batches in their own threads; what does
//!                                           └──▶ OTLP traces ┘ not fit into their queues is dropped
//! ```

use std::io;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{ExporterBuildError, LogExporter, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Dispatch, Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

/// How long a collector may take for one batch, and all of them at the end.
const EXPORT_TIME: Duration = Duration::from_secs(5);

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What to log, and where to.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Form of the lines on standard output.
    pub format: Format,
    /// What is logged, as in `info,castgate_operator=debug`.
    pub filter: String,
    /// Collector that takes OTLP over gRPC, as in `http://collector:4317`. None: nothing leaves over the network.
    pub otlp_endpoint: Option<String>,
    /// Which replica this is: `service.instance.id`.
    pub instance: String,
}

/// Why logging cannot begin or change.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not one.
    #[error("log filter {filter:?}: {reason}")]
    Filter {
        /// What was given.
        filter: String,
        /// Why it is refused.
        reason: String,
    },
    /// The collector's address is not one.
    #[error("OTLP endpoint {endpoint:?}: {source}")]
    Otlp {
        /// What was given.
        endpoint: String,
        /// Why it is refused.
        source: ExporterBuildError,
    },
    /// Somebody else logs already.
    #[error("logging has begun already")]
    Begun,
}

/// The filter in force; clones change the same one.
#[derive(Debug, Clone)]
pub struct Level {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Level {
    /// What is logged now.
    #[must_use]
    pub fn filter(&self) -> String {
        self.filter.with_current(ToString::to_string).unwrap_or_default()
    }

    /// Logs something else from now on.
    ///
    /// # Errors
    /// The text is no filter; the one before stays in force.
    pub fn set(&self, filter: &str) -> Result<(), LogError> {
        let parsed = parse(filter)?;
        self.filter
            .reload(parsed)
            .map_err(|error| LogError::Filter { filter: filter.to_owned(), reason: error.to_string() })
    }
}

/// Logging that has begun. Call [`finish`](Self::finish) before the process ends: batches wait for their time.
#[derive(Debug)]
pub struct Logs {
    level: Level,
    otlp: Option<Otlp>,
}

#[derive(Debug)]
struct Otlp {
    traces: SdkTracerProvider,
    logs: SdkLoggerProvider,
}

impl Logs {
    /// Begins to log for the whole process, to standard output and to the collector. Within a Tokio runtime only.
    ///
    /// # Errors
    /// The filter or the endpoint is not one, or logging has begun already.
    pub fn begin(options: &LogOptions) -> Result<Self, LogError> {
        let (dispatch, logs) = Self::build(options, io::stdout)?;
        tracing::dispatcher::set_global_default(dispatch).map_err(|_| LogError::Begun)?;
        Ok(logs)
    }

    /// The same for a part of the program, with the lines going elsewhere.
    ///
    /// # Errors
    /// The filter or the endpoint is not one.
    pub fn build<W>(options: &LogOptions, lines: W) -> Result<(Dispatch, Self), LogError>
    where
        W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    {
        let (filter, handle) = reload::Layer::new(parse(&options.filter)?);
        let otlp = options.otlp_endpoint.as_deref().map(|endpoint| Otlp::connect(endpoint, &options.instance));
        let otlp = otlp.transpose()?;
        let subscriber = Registry::default()
            .with(filter)
            .with(lines_layer(options.format, lines))
            .with(otlp.as_ref().map(Otlp::trace_layer))
            .with(otlp.as_ref().map(Otlp::log_layer));
        Ok((Dispatch::new(subscriber), Self { level: Level { filter: handle }, otlp }))
    }

    /// The filter, to be changed at run time.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level.clone()
    }

    /// Sends what still waits, for five seconds at most.
    pub async fn finish(self) {
        let Some(otlp) = self.otlp else { return };
        // The exporters block their caller until the runtime has sent the batch.
        let sent = tokio::task::spawn_blocking(move || {
            let traces = otlp.traces.shutdown_with_timeout(EXPORT_TIME);
            let logs = otlp.logs.shutdown_with_timeout(EXPORT_TIME);
            traces.and(logs)
        });
        // Nobody is left to be told through the log but standard output, and there it is of no use to anybody.
        let _ = sent.await;
    }
}

impl Otlp {
    fn connect(endpoint: &str, instance: &str) -> Result<Self, LogError> {
        let refused = |source| LogError::Otlp { endpoint: endpoint.to_owned(), source };
        let spans = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_TIME)
            .build()
            .map_err(refused)?;
        let records = LogExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_TIME)
            .build()
            .map_err(refused)?;
        let resource = Resource::builder()
            .with_service_name("castgate-operator")
            .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(opentelemetry::KeyValue::new("service.instance.id", instance.to_owned()))
            .build();
        Ok(Self {
            traces: SdkTracerProvider::builder().with_batch_exporter(spans).with_resource(resource.clone()).build(),
            logs: SdkLoggerProvider::builder().with_batch_exporter(records).with_resource(resource).build(),
        })
    }

    fn trace_layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.traces.tracer("castgate-operator"))
            .with_filter(filter_fn(is_not_of_the_exporter))
    }

    fn log_layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        OpenTelemetryTracingBridge::new(&self.logs).with_filter(filter_fn(is_not_of_the_exporter))
    }
}

/// What the exporter's own transport says must not be exported: it would never end.
fn is_not_of_the_exporter(metadata: &Metadata) -> bool {
    const TRANSPORT: [&str; 5] = ["opentelemetry", "tonic", "h2", "hyper", "tower"];
    let room = metadata.target().split("::").next().unwrap_or_default();
    !TRANSPORT.iter().any(|transport| room == *transport || room.starts_with(&format!("{transport}_")))
}

fn lines_layer<S, W>(format: Format, lines: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(lines);
    match format {
        // The lines end up in a file of the kubelet: no colours.
        Format::Text => layer.with_ansi(false).boxed(),
        Format::Json => layer.json().flatten_event(true).boxed(),
    }
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    let refused = |reason: String| LogError::Filter { filter: filter.to_owned(), reason };
    if filter.is_empty() {
        return Err(refused("it is empty".to_owned()));
    }
    EnvFilter::try_new(filter).map_err(|error| refused(error.to_string()))
}

#[cfg(test)]
mod tests;
