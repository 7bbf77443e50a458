//! The port as a scraper, the kubelet and a person use it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::{debug, info};

use super::super::{Format, LogOptions, Logs};
use super::*;

#[tokio::test]
async fn a_scraper_gets_the_metrics() {
    let port = Port::open().await;
    port.metrics.endpoint_written();
    let (head, body) = port.ask("GET /metrics HTTP/1.1", "").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("application/openmetrics-text"), "{head}");
    assert!(body.contains("castgate_endpoint_writes_total 1\n") && body.ends_with("# EOF\n"), "{body}");
}

#[tokio::test]
async fn ready_means_that_every_part_works() {
    let port = Port::open().await;
    port.health.set("watch", false);
    port.health.set("agents", false);
    assert_eq!(port.ask("GET /livez HTTP/1.1", "").await.1, "ok\n", "it lives all the same");
    let (head, body) = port.ask("GET /readyz HTTP/1.1", "").await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(body, "not ready: agents, watch\n");
    port.health.set("watch", true);
    assert_eq!(port.ask("GET /readyz HTTP/1.1", "").await.1, "not ready: agents\n");
    port.health.set("agents", true);
    assert_eq!(port.ask("GET /readyz HTTP/1.1", "").await.1, "ok\n");
}

#[tokio::test]
async fn the_log_level_changes_while_it_runs() {
    let port = Port::open().await;
    let say = || {
        tracing::dispatcher::with_default(&port.dispatch, || {
            info!("an important thing");
            debug!("a small thing");
        });
    };
    say();
    assert_eq!(port.lines(), ["an important thing"]);
    assert_eq!(port.ask("GET /loglevel HTTP/1.1", "").await.1, "info\n");

    let (head, body) = port.ask("PUT /loglevel HTTP/1.1", "warn,castgate_operator=debug\n").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(body, "castgate_operator=debug,warn\n");
    say();
    assert_eq!(port.lines(), ["an important thing", "an important thing", "a small thing"]);
}

#[tokio::test]
async fn a_filter_that_is_none_is_refused_with_a_sentence_and_changes_nothing() {
    let port = Port::open().await;
    for bad in ["", "castgate_operator=loud", "a=b=c"] {
        let (head, body) = port.ask("PUT /loglevel HTTP/1.1", bad).await;
        assert!(head.starts_with("HTTP/1.1 400 "), "{bad:?}: {head}");
        assert!(body.starts_with(&format!("log filter {bad:?}: ")), "{body}");
    }
    let (head, _) = port.ask("PUT /loglevel HTTP/1.1", &"x".repeat(BODY_BYTES_MAX + 1)).await;
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
    assert_eq!(port.ask("GET /loglevel HTTP/1.1", "").await.1, "info\n");
}

#[tokio::test]
async fn other_pages_and_methods_are_refused() {
    let port = Port::open().await;
    for (line, status) in [
        ("GET / HTTP/1.1", "404"),
        ("GET /metrics/x HTTP/1.1", "404"),
        ("POST /metrics HTTP/1.1", "405"),
        ("PUT /readyz HTTP/1.1", "405"),
        ("DELETE /loglevel HTTP/1.1", "405"),
    ] {
        let (head, _) = port.ask(line, "").await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {head}");
    }
}

/// The port, on loopback, with logs of its own.
struct Port {
    address: std::net::SocketAddr,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    dispatch: tracing::Dispatch,
    /// With one dispatcher alone the library asks that of the thread which reloads: here, in tests, there is none.
    _another: tracing::Dispatch,
    written: Written,
    task: tokio::task::JoinHandle<()>,
}

impl Port {
    async fn open() -> Self {
        let written = Written::default();
        let options = LogOptions {
            format: Format::Json,
            filter: "info".to_owned(),
            otlp_endpoint: None,
            instance: "test".to_owned(),
        };
        let lines = written.clone();
        let (dispatch, logs) = Logs::build(&options, move || lines.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (metrics, health) = (Arc::new(Metrics::new()), Arc::new(Health::default()));
        let task = tokio::spawn(serve(listener, Arc::clone(&metrics), Arc::clone(&health), logs.level()));
        let another = tracing::Dispatch::new(tracing_subscriber::Registry::default());
        Self { address, metrics, health, dispatch, _another: another, written, task }
    }

    /// One request, the head and the body of its answer.
    async fn ask(&self, line: &str, body: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let request = format!("{line}\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        (head.to_owned(), body.to_owned())
    }

    /// Messages logged so far.
    fn lines(&self) -> Vec<String> {
        let written = self.written.0.lock().unwrap();
        let lines = std::str::from_utf8(&written).unwrap().lines();
        lines
            .map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).expect("each line is one JSON object");
                line["message"].as_str().unwrap().to_owned()
            })
            .collect()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What was logged.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
