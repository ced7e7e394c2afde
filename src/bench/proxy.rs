//! Rows through a real Envoy: what the hop to the picker adds, against the same Envoy without one.

use super::BenchError;
use super::account::Account;
use super::args::RunArgs;
use super::children::{Folder, Process};
use super::connection::Target;
use super::load;
use super::profiles::Spec;
use super::prompt::Prompts;
use super::report::Row;
use super::run;
use super::stats::Measured;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

const DIRECT: &str = include_str!("envoy-direct.yaml");

/// Measures a row through `configuration`, a shipped one: first the same requests through an Envoy that asks no
/// picker, as the floor, then through one that does.
///
/// # Errors
/// When there is no Envoy, or a process cannot be started.
pub async fn measured(args: &RunArgs, spec: &Spec, configuration: &str) -> Result<Row, BenchError> {
    if args.target.is_some() {
        let text =
            "rows through Envoy start their own picker: leave --target out, or name a build with --picker";
        return Err(BenchError::Usage(text.to_owned()));
    }
    let folder = Folder::new();
    let engines = run::start_engines(args, spec, &folder).await?;
    let addresses = addresses(&engines.endpoints)?;
    let direct = DIRECT.replace("ENDPOINTS\n", &endpoints(&addresses));
    let (envoy, target) = start(args, "envoy-direct", &direct, None, &folder).await?;
    let floor = load::run(&spec.workload, prompts(spec, 0), target, None).await?;
    drop(envoy);
    let run::Picker { process: picker, address, .. } =
        run::start_picker(args, spec, &engines, &folder).await?;
    let (_envoy, target) = start(args, "envoy", configuration, Some(address.port()), &folder).await?;
    let account = Account::of(picker.id());
    let mut runs = Vec::with_capacity(args.runs);
    for seed in 1..=args.runs.max(1) as u64 {
        let workload = super::workload::Workload { seed: spec.workload.seed + seed, ..spec.workload.clone() };
        runs.push(load::run(&workload, prompts(spec, seed), target, Some(&account)).await?);
    }
    let mut row = Row::new(&spec.workload, Some(floor.clone()), &runs);
    row.note(added(&floor, &row.measured));
    Ok(row)
}

fn prompts(spec: &Spec, run: u64) -> Prompts {
    Prompts::new(spec.workload.prompts, spec.workload.turns, spec.workload.seed + run)
}

/// What the hop adds to each percentile.
fn added(without: &Measured, with: &Measured) -> String {
    let micros = |time: Duration| time.as_nanos() as f64 / 1e3;
    let one = |name: &str, of: fn(&Measured) -> Duration| {
        let (with, without) = (micros(of(with)), micros(of(without)));
        format!("{name} {:+.0} µs ({without:.0} without)", with - without)
    };
    let parts = [
        one("p50", |m| m.latency.p50),
        one("p90", |m| m.latency.p90),
        one("p99", |m| m.latency.p99),
        one("p99.9", |m| m.latency.p999),
    ];
    format!("the hop adds {}", parts.join(", "))
}

/// Starts an Envoy of one thread on the generator's core, with the ports of `configuration` replaced by free ones.
async fn start(
    args: &RunArgs,
    name: &str,
    configuration: &str,
    picker: Option<u16>,
    folder: &Folder,
) -> Result<(Process, Target), BenchError> {
    if !args.envoy.is_file() {
        let text = format!(
            "no Envoy at `{}`: `make bench-profiles` installs one, or name one with --envoy",
            args.envoy.display()
        );
        return Err(BenchError::Usage(text));
    }
    let [requests, admin, _unused] = run::free_ports()?;
    let text = with_ports(configuration, requests, admin, picker);
    let file = folder.write(&format!("{name}.yaml"), &text)?.display().to_string();
    let flags = ["-c", &file, "--concurrency", "1", "--disable-hot-restart", "-l", "warning"];
    let mut envoy =
        Process::start(name, &args.envoy, &flags.map(str::to_owned), args.own_core(), folder.path())?;
    let ready = format!("http://127.0.0.1:{admin}/ready");
    envoy.until(|| async { run::get(&ready).await.map(|_text| ()) }).await?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, requests));
    Ok((envoy, Target { address, tls: false }))
}

/// The shipped configurations have every port as a plain number of its own.
fn with_ports(configuration: &str, requests: u16, admin: u16, picker: Option<u16>) -> String {
    let mut text = configuration.replace("0.0.0.0", "127.0.0.1");
    for (shipped, port) in [(8081, Some(requests)), (19000, Some(admin)), (9002, picker)] {
        if let Some(port) = port {
            text = text.replace(&format!("port_value: {shipped} }}"), &format!("port_value: {port} }}"));
        }
    }
    text
}

fn endpoints(addresses: &[SocketAddr]) -> String {
    let line = |a: &SocketAddr| {
        let (ip, port) = (a.ip(), a.port());
        format!(
            "              - endpoint: {{ address: {{ socket_address: {{ address: {ip}, port_value: {port} }} }} }}\n"
        )
    };
    addresses.iter().map(line).collect()
}

/// The addresses in a file of endpoints that the harness wrote.
fn addresses(file: &Path) -> Result<Vec<SocketAddr>, BenchError> {
    let text =
        std::fs::read_to_string(file).map_err(|source| BenchError::File { path: file.to_owned(), source })?;
    let address = |line: &str| {
        let mut quoted = line.split('"').skip(1).step_by(2);
        let (ip, port) = (quoted.next()?.parse().ok()?, quoted.next()?.parse().ok()?);
        Some(SocketAddr::new(ip, port))
    };
    Ok(text.lines().filter_map(address).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::stats::Percentiles;

    #[test]
    fn the_ports_of_every_configuration_are_replaced() {
        let shipped = include_str!("../../deploy/standalone/envoy-no-response-body.yaml");
        for configuration in [DIRECT, shipped] {
            let text = with_ports(configuration, 41_001, 41_002, Some(41_003));
            assert!(text.contains("port_value: 41001 }") && text.contains("port_value: 41002 }"));
            let ports = ["port_value: 8081 ", "port_value: 19000 ", "port_value: 9002 "];
            assert!(!ports.iter().any(|p| text.contains(p)) && !text.contains("0.0.0.0"));
        }
    }

    #[tokio::test]
    async fn the_file_of_endpoints_is_read_back() {
        let engines = crate::bench::engines::listen(Ipv4Addr::LOCALHOST.into(), 3).await.unwrap();
        let file = tempfile::tempdir().unwrap();
        let path = file.path().join("endpoints.yaml");
        crate::bench::engines::write_endpoints(&engines, &path).unwrap();
        let read = addresses(&path).unwrap();
        assert_eq!(read, engines.iter().map(|e| e.local_addr().unwrap()).collect::<Vec<_>>());
        assert_eq!(endpoints(&read).lines().count(), 3);
    }

    #[test]
    fn what_the_hop_adds_is_the_difference() {
        let of = |micros| Measured {
            latency: Percentiles { p50: Duration::from_micros(micros), ..Default::default() },
            ..Default::default()
        };
        assert!(added(&of(100), &of(350)).starts_with("the hop adds p50 +250 µs (100 without), p90 +0 µs"));
    }
}
