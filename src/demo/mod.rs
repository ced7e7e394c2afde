//! `pointsman demo`: engines, picker and a real Envoy on this machine; round robin against Pointsman, side by side.

mod load;
mod report;
mod stack;
mod workload;

pub use stack::StackError;

use report::Figures;
use stack::{Ports, Stack};
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;
use workload::Shape;

/// Flags of `pointsman demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// The Envoy program. `make demo` installs one and passes it.
    #[arg(long, env = "POINTSMAN_ENVOY", default_value = "envoy")]
    pub envoy: PathBuf,
    /// First of the ports that the demo uses on 127.0.0.1.
    #[arg(long, default_value_t = 18080)]
    pub base_port: u16,
    /// How many engines are simulated.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..=16))]
    pub engines: u16,
    /// Seed of the workload; the same seed asks the same questions at the same times.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Mean rate of requests a second.
    #[arg(long, default_value_t = 18.0)]
    pub rate: f64,
    /// Size of the workload, 1 being about half a minute a run.
    #[arg(long, default_value_t = 1.0)]
    pub scale: f64,
    /// Configuration of the picker; the recommended one by default.
    #[arg(long)]
    pub config_file: Option<PathBuf>,
    /// Leave everything running afterwards and print how to use it.
    #[arg(long, env = "KEEP", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::Set, default_value = "0")]
    pub keep: bool,
}

/// The configuration that the demo's picker runs with.
const RECOMMENDED: &str = include_str!("../../config/recommended.yaml");

/// Runs the demo until it is done or `shutdown` completes; everything it started is stopped in both cases.
pub async fn run(args: DemoArgs, shutdown: impl Future<Output = ()>) -> Result<(), StackError> {
    let ports = Ports { base: args.base_port, engines: args.engines };
    let folder = std::env::temp_dir().join(format!("pointsman-demo-{}", std::process::id()));
    let mut stack = Stack::prepare(folder, ports, &args.envoy)?;
    let result = tokio::select! {
        result = play(&mut stack, &args) => result,
        () = shutdown => { eprintln!("\ninterrupted, stopping everything"); Ok(()) }
    };
    stack.stop().await;
    result
}

async fn play(stack: &mut Stack, args: &DemoArgs) -> Result<(), StackError> {
    eprintln!("starting {} engines, the picker and two Envoys …", args.engines);
    start(stack, args).await?;
    let chat = Shape::chat(args.scale, args.rate);
    let title = format!(
        "Multi-turn chat, {} teams with a system prompt each, {:.0} requests/s, seed {}",
        chat.teams, args.rate, args.seed
    );
    let (baseline, ours) = compare(stack, args, &chat).await?;
    print(&report::table(&title, &baseline, &ours));
    let (baseline, ours) = compare(stack, args, &Shape::unique(args.scale, args.rate)).await?;
    print(&report::table(
        "Unique prompts: nothing to reuse, so this is what being cache-aware costs",
        &baseline,
        &ours,
    ));
    if args.keep { keep(stack).await } else { Ok(()) }
}

#[expect(clippy::print_stdout, reason = "the tables are what the command is for")]
fn print(text: &str) {
    println!("{text}");
}

async fn start(stack: &mut Stack, args: &DemoArgs) -> Result<(), StackError> {
    let me =
        std::env::current_exe().map_err(|source| StackError::Start { what: "pointsman".into(), source })?;
    let ports = stack.ports;
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let mut endpoints = String::from("endpoints:\n");
    for i in 0..ports.engines {
        let port = ports.engine(i);
        let engine = format!(
            "sim --model demo --host 127.0.0.1 --port {port} --pod-name engine-{i} --block-size 16 \
             --num-gpu-blocks-override 3000 --max-num-seqs 64 --max-model-len 32768"
        );
        stack.start(&format!("engine-{i}"), &me, &words(&engine))?;
        endpoints += &format!("  - {{ name: engine-{i}, address: 127.0.0.1, port: \"{port}\" }}\n");
    }
    let endpoints = stack.write("endpoints.yaml", &endpoints)?;
    let config = match &args.config_file {
        Some(path) => path.clone(),
        None => stack.write("config.yaml", RECOMMENDED)?,
    };
    let mut picker = words(&format!(
        "epp --grpc-port {} --grpc-health-port {} --metrics-port {} --config-file",
        ports.ext_proc(),
        ports.health(),
        ports.metrics()
    ));
    picker.push(config.display().to_string());
    picker.push("--endpoints-file".into());
    picker.push(endpoints.display().to_string());
    stack.start("picker", &me, &picker)?;
    let limit = Duration::from_secs(20);
    for i in 0..ports.engines {
        let url = format!("http://127.0.0.1:{}/health", ports.engine(i));
        stack.ready(&format!("engine-{i}"), &url, limit).await?;
    }
    stack.ready("picker", &format!("http://127.0.0.1:{}/readyz", ports.metrics()), limit).await?;
    let (ours, theirs) = (stack.picker_proxy(), stack.round_robin_proxy());
    for (name, text, admin) in
        [("envoy", ours, ports.proxy_admin()), ("envoy-round-robin", theirs, ports.round_robin_admin())]
    {
        let file = stack.write(&format!("{name}.yaml"), &text)?.display().to_string();
        let flags = ["-c", &file, "--concurrency", "1", "--disable-hot-restart", "-l", "warning"];
        stack.start(name, &args.envoy, &flags.map(str::to_owned))?;
        stack.ready(name, &format!("http://127.0.0.1:{admin}/ready"), limit).await?;
    }
    stack.ready("envoy", &format!("http://127.0.0.1:{}/v1/models", ports.requests()), limit).await
}

/// Runs the same arrivals through both proxies, each on engines with empty caches.
async fn compare(
    stack: &mut Stack,
    args: &DemoArgs,
    shape: &Shape,
) -> Result<(Figures, Figures), StackError> {
    let engines = usize::from(args.engines);
    let mut figures = Vec::with_capacity(2);
    for (label, port) in [("round robin", stack.ports.round_robin()), ("Pointsman", stack.ports.requests())] {
        forget(stack.ports).await?;
        let asks = workload::generate(shape, args.seed);
        let run = load::run(label, &format!("http://127.0.0.1:{port}/v1/chat/completions"), asks).await?;
        for (problem, count) in &run.errors {
            eprintln!("  {count} × {problem}");
        }
        stack.check()?;
        figures.push(run.figures(engines));
    }
    let ours = figures.pop();
    match (figures.pop(), ours) {
        (Some(baseline), Some(ours)) => Ok((baseline, ours)),
        _ => unreachable!("both runs were pushed"),
    }
}

/// Restarts every engine's state, so that each run starts cold.
async fn forget(ports: Ports) -> Result<(), StackError> {
    let client = reqwest::Client::new();
    for i in 0..ports.engines {
        let url = format!("http://127.0.0.1:{}/admin/restart", ports.engine(i));
        client.post(url).send().await?.error_for_status()?;
    }
    // The picker learns of the restart with its next scrape.
    tokio::time::sleep(Duration::from_millis(500)).await;
    Ok(())
}

async fn keep(stack: &mut Stack) -> Result<(), StackError> {
    let p = stack.ports;
    print(&format!(
        "Everything is still running; Ctrl-C stops it.\n\
         \n  requests        http://127.0.0.1:{req}\n  picker metrics  http://127.0.0.1:{m}/metrics\n  \
         picker state    http://127.0.0.1:{m}/debug/state\n  Envoy admin     http://127.0.0.1:{a}\n\n  \
         curl -si http://127.0.0.1:{req}/v1/chat/completions -H 'content-type: application/json' \\\n    \
         -d '{{\"model\":\"demo\",\"max_tokens\":16,\"messages\":[{{\"role\":\"user\",\"content\":\"Where does this go?\"}}]}}'\n",
        req = p.requests(),
        m = p.metrics(),
        a = p.proxy_admin(),
    ));
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        stack.check()?;
    }
}
