use clap::Parser;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: SimArgs,
}

fn parse(line: &str) -> Result<SimArgs, clap::Error> {
    Cli::try_parse_from(std::iter::once("sim").chain(line.split_whitespace())).map(|cli| cli.args)
}

fn config(line: &str) -> SimConfig {
    parse(line).unwrap().configs().unwrap().remove(0)
}

#[test]
fn the_command_line_is_well_formed() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[test]
fn without_flags_the_defaults_hold() {
    let (ours, default) = (config(""), SimConfig::default());
    assert_eq!(ours.listen.to_string(), "0.0.0.0:8000");
    assert_eq!(format!("{:?}", ours.engine), format!("{:?}", default.engine));
    assert_eq!(ours.names(), ["sim"]);
    assert_eq!(config("--host localhost").listen.to_string(), "127.0.0.1:8000");
    assert_eq!(config("--host ::1").listen.to_string(), "[::1]:8000");
}

#[test]
fn a_line_for_vllm_is_understood() {
    let args = parse(
        "meta/llama --served-model-name a b --port 9000 --tensor-parallel-size 2 --enforce-eager --dtype auto \
         --max-num-seqs 7 --block-size 32 --num-gpu-blocks-override 96 --no-enable-prefix-caching --lora-modules x=/x",
    )
    .unwrap();
    assert_eq!(args.without_effect(), ["--tensor-parallel-size", "--dtype", "--enforce-eager"]);
    let config = args.configs().unwrap().remove(0);
    assert_eq!((config.model.as_str(), config.names()), ("meta/llama", vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!((config.engine.max_num_seqs, config.engine.block_size, config.engine.num_blocks), (7, 32, 96));
    assert!(!config.engine.prefix_caching);
    assert_eq!(config.engine.max_model_len, 96 * 32);
    assert_eq!(config.loras, [LoraModule { name: "x".into(), path: "/x".into() }]);
}

#[test]
fn a_line_for_the_llm_d_simulator_is_understood() {
    let config = config(
        "--model m --mode echo --time-to-first-token 100 --time-to-first-token-std-dev 20ms --inter-token-latency 250us \
         --time-factor-under-load 2 --kv-cache-size 64 --enable-kvcache --max-waiting-queue-length 3 \
         --failure-injection-rate 10 --failure-types rate_limit,server_error --fake-metrics {\"running-requests\":3}",
    );
    let Latency::Timed(cost) = &config.engine.latency else { panic!("shared steps") };
    let first = cost.first_token.unwrap();
    assert_eq!((first.mean, first.std_dev), (Duration::from_millis(100), Duration::from_millis(20)));
    assert_eq!((cost.inter_token.mean, cost.factor_under_load), (Duration::from_micros(250), 2.0));
    assert_eq!((config.engine.num_blocks, config.engine.max_waiting, config.mode), (64, 3, Mode::Echo));
    assert_eq!(config.faults.error_types, [FailureType::RateLimit, FailureType::ServerError]);
    assert_eq!((config.faults.error_rate, config.fake_metrics.unwrap().running_requests), (0.1, Some(3.0)));
}

#[test]
fn ranks_have_ports_counted_up() {
    let configs = parse("--port 9000 --data-parallel-size 3").unwrap().configs().unwrap();
    let ports: Vec<_> = configs.iter().map(|c| (c.listen.port(), c.rank)).collect();
    assert_eq!(ports, [(9000, 0), (9001, 1), (9002, 2)]);
    assert!(parse("--port 65535 --data-parallel-size 2").unwrap().configs().is_err());
    assert!(parse("--data-parallel-size 9").is_err());
}

#[test]
fn the_file_gives_what_the_line_leaves_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sim.yaml");
    std::fs::write(
        &path,
        "model: filed\nport: 9100\nserved-model-name: one\nlora-modules:\n  - a=/a\nkv-cache-size: 12\n\
         prefill-overhead: 30ms\ninter-token-latency: 12\ntensor-parallel-size: 8\nenable-kvcache: true\n",
    )
    .unwrap();
    let args = parse(&format!("--port 9200 --config {}", path.display())).unwrap().with_file().unwrap();
    let config = args.configs().unwrap().remove(0);
    assert_eq!(
        (config.model.as_str(), config.listen.port(), config.names()),
        ("filed", 9200, vec!["one".to_owned()])
    );
    assert_eq!((config.loras.len(), config.engine.num_blocks), (1, 12));
    let Latency::Timed(cost) = config.engine.latency else { panic!("shared steps") };
    assert_eq!(
        (cost.prefill_overhead, cost.inter_token.mean),
        (Duration::from_millis(30), Duration::from_millis(12))
    );
    std::fs::write(&path, "prot: 1\n").unwrap();
    let error = parse(&format!("--config {}", path.display())).unwrap().with_file().unwrap_err().to_string();
    assert!(error.contains("prot") && error.contains("sim.yaml"), "{error}");
}

#[test]
fn a_wrong_flag_is_answered_with_the_nearest() {
    let Err(error) = parse("--max-num-sequs 3") else { panic!("accepted") };
    assert!(error.to_string().contains("--max-num-seqs"), "{error}");
    for (line, flag) in [("--faults {\"x\":1}", "--faults"), ("--lora-modules x", "--lora-modules")] {
        assert!(parse(line).unwrap().configs().unwrap_err().to_string().contains(flag));
    }
}

#[test]
fn times_have_units() {
    for (text, micros) in [("12", 12_000), ("250us", 250), ("1.5s", 1_500_000), ("0.1ms", 100)] {
        assert_eq!(text.parse::<Millis>().unwrap().0, Duration::from_micros(micros), "{text}");
    }
    assert!("12 parsecs".parse::<Millis>().is_err() && "fast".parse::<Millis>().is_err());
}
