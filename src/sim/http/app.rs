//! One server's state and its routes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::body;
use super::complete;
use super::info::server_info;
use super::prepare::{self, Api, Prepared};
use super::reply::{ApiError, Dropped, Failure, json_response, typed};
use crate::sim::config::SimConfig;
use crate::sim::driver::{Driver, unix_now};
use crate::sim::engine::AdapterId;
use crate::sim::faults::{FailureType, Faults, MetricsFault};
use crate::sim::metrics::{Page, PageLabels};

/// Bodies from this size on are read on a thread of their own.
const LARGE_BODY: usize = 256 << 10;

/// What the listener is told to do.
pub enum Control {
    /// Drop everything, forget everything, come back after this time.
    Restart(Duration),
    /// Drop everything and refuse connections for this time; the engine keeps its state.
    Down(Duration),
}

/// One simulated server.
pub struct App {
    pub config: SimConfig,
    /// Names of the base model; never empty.
    pub names: Vec<String>,
    pub driver: Driver,
    pub faults: watch::Sender<Faults>,
    page: Page,
    control: mpsc::Sender<Control>,
    rng: Mutex<fastrand::Rng>,
    created: u64,
}

impl App {
    pub fn new(config: SimConfig, control: mpsc::Sender<Control>) -> std::io::Result<Self> {
        let adapters = config.loras.iter().map(|l| l.name.clone()).collect();
        let driver = Driver::start(config.engine.clone(), adapters)?;
        driver.set_slowdown(config.faults.slowdown);
        let names = config.names();
        let page = Page::new(&PageLabels {
            model: names.first().cloned().unwrap_or_default(),
            engine: config.rank.to_string(),
            block_size: config.engine.block_size,
            num_blocks: config.engine.num_blocks,
            prefix_caching: config.engine.prefix_caching,
            max_loras: (!config.loras.is_empty()).then_some(config.engine.max_loras),
        });
        Ok(Self {
            names,
            driver,
            faults: watch::Sender::new(config.faults.clone()),
            page,
            control,
            rng: Mutex::new(fastrand::Rng::with_seed(config.seed)),
            created: unix_now() as u64,
            config,
        })
    }

    /// The adapter of this name, or none for the base model.
    pub fn adapter_of(&self, model: &str) -> Result<Option<AdapterId>, ApiError> {
        if self.names.iter().any(|n| n == model) {
            return Ok(None);
        }
        let index = self.config.loras.iter().position(|l| l.name == model);
        let index = index.and_then(|i| u16::try_from(i).ok());
        index.map(|i| Some(AdapterId(i))).ok_or_else(|| {
            let aliases = self.names.iter().chain(self.config.loras.iter().map(|l| &l.name)).cloned();
            ApiError::unknown_model(model, &aliases.collect::<Vec<_>>())
        })
    }

    /// Answers one request, or says that the connection is to be closed.
    /// `reached` is the address that the client connected to.
    pub async fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
        reached: SocketAddr,
    ) -> Result<Response<Body>, Dropped> {
        let (parts, body) = request.into_parts();
        if !parts.uri.path().starts_with("/admin/") {
            self.hang_or_refuse().await?;
        }
        let mut response = match self.route(&parts, body).await {
            Ok(response) => response,
            Err(Failure::Api(error)) => error.response(),
            Err(Failure::Dropped) => return Err(Dropped),
        };
        self.mark(&parts, reached, &mut response);
        Ok(response)
    }

    async fn hang_or_refuse(&self) -> Result<(), Dropped> {
        let mut faults = self.faults.subscribe();
        // The sender lives in self, so the wait ends only when the fault is lifted.
        let refuse = faults.wait_for(|f| !f.hang).await.map_err(|_| Dropped)?.refuse;
        if refuse { Err(Dropped) } else { Ok(()) }
    }

    /// Who answered, and the request's id.
    fn mark(&self, parts: &Parts, reached: SocketAddr, response: &mut Response<Body>) {
        let headers = response.headers_mut();
        let pod = self.config.pod_name.clone().unwrap_or_else(|| reached.to_string());
        let texts =
            [("x-inference-pod", Some(pod)), ("x-inference-namespace", self.config.pod_namespace.clone())];
        for (name, text) in texts {
            if let Some(value) = text.and_then(|t| HeaderValue::try_from(t).ok()) {
                headers.insert(name, value);
            }
        }
        headers.insert("x-inference-port", HeaderValue::from(reached.port()));
        if let Some(id) = parts.headers.get("x-request-id").filter(|_| self.config.request_id_headers) {
            headers.insert("x-request-id", id.clone());
        }
    }

    async fn route(self: &Arc<Self>, parts: &Parts, body: Incoming) -> Result<Response<Body>, Failure> {
        let path = parts.uri.path();
        if path == "/echo" || path.starts_with("/echo/") || parts.headers.contains_key("x-sim-sink") {
            return body::echo(parts, body).await;
        }
        if path.starts_with("/v1/") {
            self.authorize(parts)?;
        }
        match (&parts.method, path) {
            (&Method::POST, "/v1/chat/completions") => self.generate(Api::Chat, parts, body).await,
            (&Method::POST, "/v1/completions") => self.generate(Api::Completions, parts, body).await,
            (&Method::POST, "/v1/responses") => self.generate(Api::Responses, parts, body).await,
            (&Method::GET, "/v1/models") => Ok(json_response(StatusCode::OK, &self.models())),
            (&Method::GET, "/metrics") => self.metrics().await,
            (&Method::GET, "/health" | "/health/ready" | "/ping") => {
                Ok(typed(StatusCode::OK, "text/plain", ""))
            }
            (&Method::GET, "/version") => Ok(json_response(StatusCode::OK, &json!({"version": "0.32.0"}))),
            (&Method::GET, "/server_info") if self.config.dev_mode => {
                Ok(json_response(StatusCode::OK, &server_info(&self.config, &self.names, parts.uri.query())))
            }
            (&Method::POST, "/tokenize") => self.tokenize(body).await,
            (&Method::POST, "/reset_prefix_cache" | "/admin/reset_prefix_cache") => {
                self.driver.reset_prefix_cache();
                Ok(json_response(StatusCode::OK, &json!({})))
            }
            (&Method::GET, "/admin/faults") => Ok(self.show_faults()),
            (&Method::POST, "/admin/faults") => self.set_faults(body).await,
            (&Method::DELETE, "/admin/faults") => {
                self.put_faults(Faults::default());
                Ok(self.show_faults())
            }
            (&Method::POST, "/admin/restart" | "/admin/down") => self.control(parts).await,
            _ => Ok(unrouted(path)),
        }
    }

    fn authorize(&self, parts: &Parts) -> Result<(), ApiError> {
        let given = parts.headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let key = given.and_then(|v| v.strip_prefix("Bearer "));
        if self.config.api_keys.is_empty() || key.is_some_and(|k| self.config.api_keys.iter().any(|a| a == k))
        {
            return Ok(());
        }
        Err(ApiError {
            status: StatusCode::UNAUTHORIZED,
            kind: "AuthenticationError",
            param: None,
            message: "Unauthorized: send `Authorization: Bearer <key>` with a key given by --api-key.".into(),
        })
    }

    async fn generate(
        self: &Arc<Self>,
        api: Api,
        parts: &Parts,
        body: Incoming,
    ) -> Result<Response<Body>, Failure> {
        let limit = self.config.max_body_bytes;
        let (bytes, digest) =
            body::read(body, limit, parts.headers.contains_key("x-sim-echo-body-hash")).await?;
        let answered = self.generate_from(api, parts, bytes).await;
        let Some(digest) = digest else { return answered };
        // Also an error tells what came in.
        let mut response = match answered {
            Err(Failure::Api(error)) => error.response(),
            answered => answered?,
        };
        digest.write(response.headers_mut());
        Ok(response)
    }

    async fn generate_from(
        self: &Arc<Self>,
        api: Api,
        parts: &Parts,
        bytes: bytes::Bytes,
    ) -> Result<Response<Body>, Failure> {
        if let Some(failure) = self.draw_failure() {
            return Err(ApiError::injected(failure).into());
        }
        let prepared = self.prepare(api, bytes).await?;
        let given = parts.headers.get("x-request-id").and_then(|v| v.to_str().ok());
        let id = given.map_or_else(|| format!("{:016x}", self.rng.lock().u64(..)), str::to_owned);
        complete::answer(self, api, &id, prepared).await
    }

    async fn prepare(self: &Arc<Self>, api: Api, bytes: bytes::Bytes) -> Result<Prepared, Failure> {
        if bytes.len() < LARGE_BODY {
            return Ok(prepare::prepare(self, api, &bytes)?);
        }
        let app = self.clone();
        let reading = tokio::task::spawn_blocking(move || prepare::prepare(&app, api, &bytes));
        Ok(reading.await.map_err(|_| Dropped)??)
    }

    fn draw_failure(&self) -> Option<FailureType> {
        let faults = self.faults.borrow();
        let mut rng = self.rng.lock();
        if faults.error_rate <= 0.0 || rng.f64() >= faults.error_rate {
            return None;
        }
        Some(rng.choice(&faults.error_types).copied().unwrap_or(FailureType::ServerError))
    }

    fn models(&self) -> Value {
        let entry = |id: &str, root: &str, parent: Option<&str>| {
            json!({
                "id": id, "object": "model", "created": self.created, "owned_by": "vllm", "root": root, "parent": parent,
                "max_model_len": if parent.is_none() { Some(self.config.engine.max_model_len) } else { None },
                "permission": [{
                    "id": format!("modelperm-{:016x}", xxhash_rust::xxh3::xxh3_64(id.as_bytes())),
                    "object": "model_permission", "created": self.created, "allow_create_engine": false,
                    "allow_sampling": true, "allow_logprobs": true, "allow_search_indices": false, "allow_view": true,
                    "allow_fine_tuning": false, "organization": "*", "group": null, "is_blocking": false,
                }],
            })
        };
        let base = self.names.iter().map(|name| entry(name, &self.config.model, None));
        let loras = self.config.loras.iter().map(|l| entry(&l.name, &l.path, Some(&self.names[0])));
        json!({"object": "list", "data": base.chain(loras).collect::<Vec<_>>()})
    }

    async fn metrics(&self) -> Result<Response<Body>, Failure> {
        let (fault, delay) = {
            let faults = self.faults.borrow();
            (faults.metrics, Duration::from_millis(faults.metrics_delay_ms))
        };
        match fault {
            MetricsFault::Ok => {}
            MetricsFault::Slow => tokio::time::sleep(delay).await,
            MetricsFault::Hang => {
                let mut faults = self.faults.subscribe();
                let _ = faults.wait_for(|f| f.metrics != MetricsFault::Hang).await;
            }
            MetricsFault::Missing => return Ok(unrouted("/metrics")),
            MetricsFault::Garbage => {
                return Ok(typed(StatusCode::OK, "text/html", "<html>not a metrics page</html>"));
            }
        }
        let stats = self.driver.with_stats(|s| s.clone());
        let page = self.page.render(&stats, self.config.fake_metrics.as_ref(), unix_now());
        Ok(typed(StatusCode::OK, "text/plain; version=1.0.0; charset=utf-8", page))
    }

    async fn tokenize(&self, body: Incoming) -> Result<Response<Body>, Failure> {
        let (bytes, _) = body::read(body, self.config.max_body_bytes, false).await?;
        let tokens = prepare::tokens_of(&bytes)?;
        let max = self.config.engine.max_model_len;
        let answer =
            json!({"count": tokens.len(), "max_model_len": max, "tokens": tokens, "token_strs": null});
        Ok(json_response(StatusCode::OK, &answer))
    }

    fn show_faults(&self) -> Response<Body> {
        let faults = self.faults.borrow().clone();
        json_response(StatusCode::OK, &serde_json::to_value(faults).unwrap_or(Value::Null))
    }

    async fn set_faults(&self, body: Incoming) -> Result<Response<Body>, Failure> {
        let (bytes, _) = body::read(body, 64 << 10, false).await?;
        let mut patch: serde_json::Map<String, Value> = serde_json::from_slice(&bytes)
            .map_err(|e| ApiError::bad_request(None, format!("A JSON object of faults is needed: {e}.")))?;
        let restart = patch.remove("restart").map(|value| down_time("restart", &value)).transpose()?;
        let down = patch.remove("down_ms").map(|value| down_time("down_ms", &value)).transpose()?;
        let faults = self.faults.borrow().patched(&patch).map_err(|e| ApiError::bad_request(None, e))?;
        self.put_faults(faults);
        if let Some(time) = restart.flatten() {
            self.control.send(Control::Restart(time)).await.map_err(|_| Dropped)?;
        }
        if let Some(time) = down.flatten() {
            self.control.send(Control::Down(time)).await.map_err(|_| Dropped)?;
        }
        Ok(self.show_faults())
    }

    fn put_faults(&self, faults: Faults) {
        self.driver.set_slowdown(faults.slowdown);
        self.faults.send_replace(faults);
    }

    /// `POST /admin/restart?down_ms=500`, `POST /admin/down?for_ms=3000`.
    async fn control(&self, parts: &Parts) -> Result<Response<Body>, Failure> {
        let restart = parts.uri.path().ends_with("restart");
        let name = if restart { "down_ms" } else { "for_ms" };
        let query = parts.uri.query().unwrap_or_default();
        let given = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let time = given.map_or(Ok(if restart { 0 } else { 1000 }), str::parse).map_err(|_| {
            ApiError::bad_request(None, format!("{name} is to be a whole number of milliseconds."))
        })?;
        let time = Duration::from_millis(time);
        let control = if restart { Control::Restart(time) } else { Control::Down(time) };
        // The listener waits a moment before it acts, so that this answer leaves.
        self.control.send(control).await.map_err(|_| Dropped)?;
        Ok(json_response(StatusCode::ACCEPTED, &json!({name: time.as_millis() as u64})))
    }
}

/// `false` for not at all, `true` for at once, a number for so many milliseconds away.
fn down_time(key: &str, value: &Value) -> Result<Option<Duration>, ApiError> {
    match value {
        Value::Bool(false) => Ok(None),
        Value::Bool(true) => Ok(Some(Duration::ZERO)),
        other => other.as_u64().map(|ms| Some(Duration::from_millis(ms))).ok_or_else(|| {
            ApiError::bad_request(None, format!("{key} is to be true or a whole number of milliseconds."))
        }),
    }
}

/// What the framework that vLLM uses says to an unknown path, or to a known one by another method.
fn unrouted(path: &str) -> Response<Body> {
    const KNOWN: [&str; 9] = [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/models",
        "/health",
        "/ping",
        "/version",
        "/tokenize",
        "/reset_prefix_cache",
    ];
    if KNOWN.contains(&path) {
        return json_response(StatusCode::METHOD_NOT_ALLOWED, &json!({"detail": "Method Not Allowed"}));
    }
    json_response(StatusCode::NOT_FOUND, &json!({"detail": "Not Found"}))
}
