use super::table::{ACCEPTED, REFUSED, all};
use super::*;
use crate::config::{
    ClusterOptions, ConfigSource, LogLevel, OverBudget, PoolGroup, PoolOptions, ResponseBodies, TlsOptions,
};
use crate::director::UnknownModel;
use crate::request::TrustedHeaders;
use std::time::Duration;

fn parse_with(line: &str, env: &[(&str, &str)]) -> Result<FlagOutcome, FlagErrors> {
    let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    parse(&args, &|name| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
}

fn run(line: &str, env: &[(&str, &str)]) -> (EppOptions, Vec<String>) {
    match parse_with(line, env) {
        Ok(FlagOutcome::Run(options, notices)) => (*options, notices.into_iter().map(|n| n.0).collect()),
        other => panic!("{line}: {other:?}"),
    }
}

fn problems(line: &str) -> Vec<String> {
    parse_with(line, &[]).expect_err(line).0
}

#[test]
fn with_no_flags_the_reference_defaults_hold() {
    let (options, notices) = run("", &[]);
    assert!(notices.is_empty(), "{notices:?}");
    let listen = &options.listen;
    assert_eq!((listen.grpc_port, listen.health_port, listen.metrics_port), (9002, 9003, 9090));
    assert_eq!(listen.socket(9002).to_string(), "[::]:9002");
    assert_eq!(listen.tls, TlsOptions::SelfSigned { only_tls13: false });
    assert_eq!(options.drain_timeout, Duration::from_secs(30));
    assert_eq!(options.poll_interval, Duration::from_millis(50));
    assert_eq!(options.pool_gauge_interval, Duration::from_secs(5));
    assert_eq!(options.staleness, Duration::from_secs(2));
    let [pool] = &options.pools[..] else { panic!("{:?}", options.pools) };
    assert_eq!((&*pool.name, &*pool.namespace, &*pool.label), ("default", "default", "default"));
    assert_eq!(pool.config, ConfigSource::BuiltIn);
    assert_eq!((pool.max_buffered_bytes, pool.prefix_index_bytes), (2 << 30, 256 << 20));
    assert_eq!(options.log_level, LogLevel::Info);
    assert_eq!(options.trusted_headers, TrustedHeaders::default());
    assert_eq!(options.unknown_model, UnknownModel::Pass);
    assert!(options.legacy_metrics && options.tracing.is_none() && options.listen.admin.address.is_none());
    let limits = &options.limits;
    assert_eq!(limits.max_body_bytes, 64 << 20);
    assert_eq!(limits.grpc_max_recv_bytes, 65 << 20, "the body cap plus 1 MiB");
    assert_eq!((limits.grpc_max_send_bytes, limits.over_budget), (None, OverBudget::Reject));
    assert_eq!(limits.response_bodies, ResponseBodies::Read);
    assert_eq!(run("--response-bodies=skip", &[]).0.limits.response_bodies, ResponseBodies::Skip);
}

#[test]
fn every_spelling_of_go_is_taken() {
    for (line, level) in [
        ("-v=4", LogLevel::Debug),
        ("--v 4", LogLevel::Debug),
        ("-v 5", LogLevel::Trace),
        ("--v=0", LogLevel::Warn),
        ("-v=5 --zap-log-level=error", LogLevel::Error),
        ("--zap-log-level 4", LogLevel::Debug),
    ] {
        assert_eq!(run(line, &[]).0.log_level, level, "{line}");
    }
    for line in ["-grpc-port 7000", "--grpc-port=7000", "-grpc-port=7000", "--grpc-port 7000"] {
        assert_eq!(run(line, &[]).0.listen.grpc_port, 7000, "{line}");
    }
    for (line, secure) in [
        ("--secure-serving", true),
        ("--secure-serving=false", false),
        ("-secure-serving=0", false),
        ("--secure-serving=T", true),
    ] {
        assert_eq!(run(line, &[]).0.listen.tls != TlsOptions::Off, secure, "{line}");
    }
    assert_eq!(run("--grpc-port=1 --grpc-port=2", &[]).0.listen.grpc_port, 2, "the last one wins");
}

#[test]
fn every_flag_of_the_reference_is_accepted_or_refused_with_its_fix() {
    let reference = "grpc-port=1 grpc-health-port=2 metrics-port=3 ha-enable-leader-election drain-timeout=1s \
        grpc-max-recv-msg-size=70Mi grpc-max-send-msg-size=4MiB pool-group=inference.networking.x-k8s.io pool-namespace=n pool-name=p \
        endpoint-target-ports=8000,8001 disable-endpoint-subset-filter emit-endpoint-scores \
        refresh-metrics-interval=100ms refresh-prometheus-metrics-interval=1s metrics-staleness-threshold=1s \
        tracing=false health-checking=false enable-pprof=false cert-path=/c enable-cert-reload secure-serving \
        tls-min-version=VersionTLS13 tls-cipher-suites=TLS_AES_128_GCM_SHA256 metrics-endpoint-auth=false \
        enable-grpc-stream-metrics config-file=/f allow-experimental-plugins v=3 zap-devel zap-encoder=json \
        zap-log-level=info zap-stacktrace-level=error zap-time-encoding=epoch";
    let line: String = reference.split_whitespace().map(|f| format!("--{f} ")).collect();
    let (options, notices) = run(&line, &[]);
    assert_eq!(options.limits.grpc_max_send_bytes, Some(4 << 20));
    let without_effect = [
        "endpoint-target-ports",
        "health-checking",
        "enable-pprof",
        "tls-cipher-suites",
        "enable-grpc-stream-metrics",
        "zap-devel",
        "zap-encoder",
        "zap-stacktrace-level",
        "zap-time-encoding",
    ];
    for name in without_effect {
        assert_eq!(
            notices.iter().filter(|n| n.starts_with(&format!("--{name}"))).count(),
            1,
            "{name}: {notices:?}"
        );
    }
    assert_eq!(notices.len(), without_effect.len(), "{notices:?}");
    run(
        "--endpoint-selector=app=vllm --endpoint-target-ports=8000 --metrics-cert-dir=/d --metrics-client-ca-file=/f \
         --config-text={}",
        &[("POD_NAME", "epp-7d9f-x1")],
    );
    for flag in REFUSED {
        let told = problems(&format!("--{}=x", flag.name));
        assert!(
            told[0].contains("deprecated and cannot be used") && told[0].contains("configuration"),
            "{told:?}"
        );
    }
    assert!(problems("--lora-info-metric x")[0].contains("engineConfigs"));
    // The ports are without effect only beside a pool.
    assert!(ACCEPTED.len() + 1 >= without_effect.len());
}

#[test]
fn an_unknown_flag_is_refused_with_the_nearest_spelling() {
    for (line, told) in [
        ("--pool-nam=x", "unknown flag --pool-nam; did you mean `pool-name`?"),
        ("--configFile x", "unknown flag --configFile; did you mean `config-file`?"),
        ("--legacy_metrics", "unknown flag --legacy_metrics; did you mean `legacy-metrics`?"),
        ("--completely-different", "unknown flag --completely-different"),
    ] {
        assert_eq!(problems(line), [told], "{line}");
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let told = problems(
        "--grpc-port=99999 --metrics-port 9003 --drain-timeout=30 --max-body-bytes=-1 --tracing=maybe --over-budget=x \
         --config-file=a --config-text=b --trusted-request-headers=x-gateway-destination-endpoint --nope --unknown-model",
    );
    for part in [
        "--grpc-port: `99999` is no port",
        "--metrics-port: port 9003 is already that of --grpc-health-port",
        "--drain-timeout: `30` is no duration",
        "--max-body-bytes: `-1` is negative",
        "--tracing: `maybe` is neither true nor false",
        "--over-budget: `x` is neither reject nor headers",
        "cannot be set at the same time",
        "can not be trusted",
        "unknown flag --nope",
        "--unknown-model needs a value",
    ] {
        assert_eq!(told.iter().filter(|p| p.contains(part)).count(), 1, "{part}: {told:#?}");
    }
    assert_eq!(told.len(), 10, "{told:#?}");
}

#[test]
fn combinations_are_checked() {
    for (line, part) in [
        ("--admin-address=0.0.0.0:9091", "add --admin-token-file"),
        ("--admin-token-file=/t", "needs --admin-address"),
        ("--admin-address=nowhere", "no address with port"),
        ("--max-buffered-bytes=1Mi", "less than --max-body-bytes"),
        ("--pool-name=a --endpoint-selector=b", "cannot be set at the same time"),
        ("--endpoint-target-ports=1,2,3,4,5,6,7,8,9", "not 1 to 8 ports"),
        ("--endpoint-target-ports=0", "not 1 to 8 ports"),
        ("--pool-group=g", "`g` is neither inference.networking.k8s.io nor inference.networking.x-k8s.io"),
        ("--metrics-client-ca-file=/f", "needs --metrics-cert-dir"),
        ("--metrics-cert-dir=/d --metrics-endpoint-auth=false", "needs --metrics-endpoint-auth"),
        ("--tls-min-version=VersionTLS10", "insecure"),
        ("--listen-address=localhost", "no IP address"),
        ("--http2-stream-window=4Gi", "not in 1..2147483647"),
    ] {
        let told = problems(line);
        assert!(told.len() == 1 && told[0].contains(part), "{line}: {told:?}");
    }
    run("--admin-address=127.0.0.1:0", &[]);
    run("--admin-address=0.0.0.0:9091 --admin-token-file=/t", &[]);
}

#[test]
fn a_pool_or_a_selector_of_pods_is_served() {
    let cluster = |line: &str, env: &[(&str, &str)]| run(line, env).0.pools[0].cluster.clone();
    assert_eq!(cluster("", &[]), None);
    assert_eq!(cluster("--pool-name=p", &[]), Some(ClusterOptions::Pool { group: PoolGroup::Stable }));
    let old = "--pool-name=p --pool-group=inference.networking.x-k8s.io";
    assert_eq!(cluster(old, &[]), Some(ClusterOptions::Pool { group: PoolGroup::Experimental }));
    assert_eq!(cluster("--pool-name=p --endpoints-file=/e", &[]), None, "a file takes its place");
    let pods = "--endpoint-selector=app=llm --endpoint-target-ports=[8000,8001,8000]";
    let (options, _) = run(pods, &[("POD_NAME", "my-epp-7d9f4c-x2v9q")]);
    let ports = vec![8000, 8001];
    let selector = "app=llm".to_owned();
    assert_eq!(options.pools[0].cluster, Some(ClusterOptions::Pods { selector, ports }));
    assert_eq!(&*options.pools[0].name, "my-epp");
}

#[test]
fn pools_may_be_several_each_with_its_own() {
    let line = "--pool-name=a --pool-name=other/b --pool-name=c --pool-name=a --config-file=/all --config-file=other/b=/b \
        --config-text=c={} --endpoints-file=default/a=/ends --endpoint-selector=c=app=llm,x=y \
        --endpoint-target-ports=8000 --max-buffered-bytes=1Gi --max-buffered-bytes=a=256Mi --prefix-index-bytes=c=1Mi \
        --pool-header=X-Pool";
    let (options, notices) = run(line, &[]);
    assert!(notices.is_empty(), "{notices:?}");
    assert_eq!(options.pool_header.as_deref(), Some("x-pool"));
    assert_eq!(options.pool_attribute, "xds.route_metadata.filter_metadata['pointsman']['pool']");
    let [a, b, c] = &options.pools[..] else { panic!("{:?}", options.pools) };
    let names = |p: &PoolOptions| (p.namespace.to_string(), p.name.to_string(), p.label.to_string());
    assert_eq!(names(a), ("default".into(), "a".into(), "a".into()));
    assert_eq!(names(b), ("other".into(), "b".into(), "other/b".into()));
    assert_eq!(a.config, ConfigSource::File("/all".into()));
    assert_eq!(b.config, ConfigSource::File("/b".into()));
    assert_eq!(c.config, ConfigSource::Text("{}".into()));
    assert_eq!((a.endpoints_file.as_deref(), &a.cluster), (Some("/ends".as_ref()), &None));
    assert_eq!(b.cluster, Some(ClusterOptions::Pool { group: PoolGroup::Stable }));
    let selector = "app=llm,x=y".to_owned();
    assert_eq!(c.cluster, Some(ClusterOptions::Pods { selector, ports: vec![8000] }));
    let bytes = |p: &PoolOptions| (p.max_buffered_bytes >> 20, p.prefix_index_bytes >> 20);
    assert_eq!([a, b, c].map(bytes), [(256, 127), (384, 127), (384, 1)]);
}

#[test]
fn one_pool_may_be_written_with_its_namespace() {
    let pool = |line: &str| run(line, &[]).0.pools[0].clone();
    let full = pool("--pool-name=ns/p --max-buffered-bytes=1Gi");
    assert_eq!((&*full.namespace, &*full.name, full.max_buffered_bytes), ("ns", "p", 1 << 30));
    assert_eq!(pool("--pool-name=p --pool-name=p").label, "p".into(), "what stands twice counts once");
    // With one pool `=` is nothing special.
    assert_eq!(pool("--pool-name=p --config-file=p=/f").config, ConfigSource::File("p=/f".into()));
    assert!(run("--pool-name=p --pool-header=x-pool", &[]).1[0].contains("no effect with one pool"));
}

#[test]
fn what_is_wrong_with_one_of_several_pools_names_it() {
    let two = "--pool-name=a --pool-name=b";
    for (flags, part) in [
        ("--config-file=a=/f --config-text=a={}", "at the same time (pool a)"),
        ("--endpoint-selector=app=llm", "`app` is none of the pools"),
        ("--endpoint-selector=llm", "a=app=llm"),
        ("--endpoint-selector=b=app=llm", "b=8000"),
        ("--max-buffered-bytes=a=1Mi", "would not fit: pool a"),
        ("--max-buffered-bytes=100Mi", "would not fit: pool a"),
        ("--max-buffered-bytes=a=4Gi", "nothing is left"),
        ("--prefix-index-bytes=b=0", "more than 0"),
        ("--pool-header=host", "begins with x-"),
        ("--pool-header=x-gateway-destination-endpoint", "begins with x-"),
        ("--config-file=c=/f", "`c` is none of the pools a, b"),
        ("--config-file=other/a=/f", "`other/a` is none of the pools a, b"),
        ("--max-buffered-bytes=c=1Gi", "`c` is none of the pools a, b"),
        ("--pool-name=A/b", "neither NAME nor NAMESPACE/NAME"),
    ] {
        let told = problems(&format!("{two} {flags}"));
        assert!(told.iter().any(|problem| problem.contains(part)), "{flags}: {told:?}");
    }
}

#[test]
fn a_selector_needs_ports_and_the_name_of_a_deployments_pod() {
    let of = |line: &str, pod: &str| {
        let FlagErrors(told) = parse_with(line, &[("POD_NAME", pod)]).unwrap_err();
        told
    };
    let told = of("--endpoint-selector=app=llm", "epp-a-b");
    assert!(told.len() == 1 && told[0].contains("needs --endpoint-target-ports"), "{told:?}");
    for pod in ["", "epp", "epp-0", "-a-b", "epp-A-b"] {
        let told = of("--endpoint-selector=app=llm --endpoint-target-ports=1", pod);
        assert!(told.len() == 1 && told[0].contains("needs the variable POD_NAME"), "{pod}: {told:?}");
    }
}

#[test]
fn what_is_changed_or_ignored_is_said() {
    for (line, part) in [
        ("--refresh-metrics-interval=10ms", "raised to 50ms"),
        ("--enable-cert-reload", "without --cert-path"),
        ("--grpc-max-recv-msg-size=4Mi", "BUFFERED"),
        ("--ha-enable-leader-election", "without Kubernetes"),
        ("--secure-serving false", "`false` belongs to no flag"),
    ] {
        let (_, notices) = run(line, &[]);
        assert!(notices.len() == 1 && notices[0].contains(part), "{line}: {notices:?}");
    }
    assert_eq!(run("--refresh-metrics-interval=10ms", &[]).0.poll_interval, Duration::from_millis(50));
    assert!(
        run("--health-checking --ha-enable-leader-election=false", &[]).1.is_empty(),
        "the defaults are no news"
    );
}

#[test]
fn variables_fill_in() {
    let (options, _) = run("", &[("NAMESPACE", "ns"), ("POD_NAME", "epp-0")]);
    assert_eq!((&*options.pools[0].namespace, options.pod_name.as_deref()), ("ns", Some("epp-0")));
    assert_eq!(&*run("--pool-namespace=x", &[("NAMESPACE", "ns")]).0.pools[0].namespace, "x");
}

#[test]
fn spans_are_exported_only_when_asked_for() {
    let tracing = |line, env: &[(&str, &str)]| run(line, env).0.tracing;
    assert_eq!(tracing("", &[]), None);
    assert_eq!(tracing("", &[("OTEL_TRACES_EXPORTER", "console")]), None);
    assert_eq!(tracing("--tracing=false", &[("OTEL_TRACES_EXPORTER", "otlp")]), None);
    let told = tracing("", &[("OTEL_TRACES_EXPORTER", "otlp")]).unwrap();
    assert_eq!(
        (told.endpoint.as_str(), told.ratio, told.service_name.as_str()),
        ("http://localhost:4317", 0.1, "llm-d-epp")
    );
    let told = tracing(
        "",
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
            ("OTEL_SERVICE_NAME", "s"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=b,c=d"),
        ],
    )
    .unwrap();
    assert_eq!((told.endpoint.as_str(), told.ratio), ("http://collector:4317", 0.5));
    assert_eq!(told.resource.len(), 2);
    let (options, notices) =
        run("", &[("OTEL_TRACES_EXPORTER", "otlp"), ("OTEL_TRACES_SAMPLER", "always_on")]);
    assert_eq!((options.tracing.map(|t| t.ratio), notices.len()), (Some(0.1), 1));
}

#[test]
fn the_table_is_sound_and_the_help_shows_it() {
    let mut names: Vec<_> = all().map(|f| f.name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "a flag stands twice");
    let help = help();
    for flag in all().filter(|f| !matches!(f.standing, super::table::Standing::Refused(_))) {
        assert!(help.contains(&format!("-{}", flag.name)), "{} is not in the help", flag.name);
    }
    assert!(help.lines().all(|line| line.chars().count() <= 150), "too wide for a terminal");
    assert_eq!(parse_with("--pool-name=x --help", &[]), Ok(FlagOutcome::Help));
    assert_eq!(parse_with("-h", &[]), Ok(FlagOutcome::Help));
    assert_eq!(parse_with("--version", &[]), Ok(FlagOutcome::Version));
}

#[test]
fn the_page_of_flags_is_that_of_the_table() {
    let page = include_str!("../../../docs/flags.md");
    for flag in all() {
        let default = if flag.default.is_empty() { String::new() } else { format!("`{}`", flag.default) };
        let row = format!("| `--{}` | {default} | {} |", flag.name, flag.help.replace('|', "\\|"));
        assert!(page.contains(&row), "docs/flags.md lacks: {row}");
    }
}

#[test]
fn the_decision_log_is_off_until_it_is_told_where() {
    use crate::config::LogTarget;
    let log = |line: &str| run(line, &[]).0.decision_log;
    assert_eq!(log(""), None);
    let told = log("--decision-log=d.jsonl").unwrap();
    assert_eq!((told.target, told.sample, told.queue), (LogTarget::File("d.jsonl".into()), 1.0, 4096));
    assert_eq!((told.sessions.len(), told.key_file), (1, None));
    assert_eq!(log("--decision-log - --decision-log-sample 0.1").unwrap().target, LogTarget::Stdout);
    assert_eq!(log("--decision-log=stdout --decision-log-session=a,cookie:b").unwrap().sessions.len(), 2);
    for (line, wanted) in [
        ("--decision-log=d --decision-log-sample=0", "no share above 0 up to 1"),
        ("--decision-log=d --decision-log-sample=1.5", "no share above 0 up to 1"),
        ("--decision-log=d --decision-log-session=a,,b", "no list of headers and cookies"),
        ("--decision-log=d --decision-log-queue=0", "not in 1..1000000"),
        ("--decision-log-sample=0.5", "needs --decision-log"),
    ] {
        let told = problems(line);
        assert!(told.len() == 1 && told[0].contains(wanted), "{line}: {told:?}");
    }
}
