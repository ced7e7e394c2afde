//! The live page in a real browser, with a real mouse: what a person sees at one endpoint and at 500, and of one decision.
//!
//! `POINTSMAN_PICTURES` names a folder in which pictures of the page are left to be looked at.

use crate::support::chromium::{Browser, DESK, Look, PHONE, Tab};
use crate::support::counted::Counted;
use crate::support::ports::free_port;
use crate::support::process::Process;
use crate::support::stack::{self, Plan};
use crate::support::{await_that, client, envoy, program, shared};
use crate::{needs_chromium, needs_envoy};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const ROWS: &str = "#pools tbody tr";

/// A picker on endpoints without engines, and a browser.
struct Scene {
    process: Process,
    port: u16,
    browser: Browser,
    arguments: Vec<String>,
    folder: tempfile::TempDir,
}

impl Scene {
    /// With one pool for each count of endpoints: unnamed where it is the only one, else `a`, `b` and so on.
    async fn of(pools: &[u16]) -> Self {
        let folder = tempfile::Builder::new().prefix("pointsman-page-").tempdir().unwrap();
        let port = free_port();
        let mut arguments = vec![
            "epp".to_owned(),
            format!("--metrics-port={port}"),
            format!("--grpc-port={}", free_port()),
            format!("--grpc-health-port={}", free_port()),
        ];
        for (name, endpoints) in ('a'..).zip(pools) {
            let list = folder.path().join(format!("endpoints-{name}.yaml"));
            // Nothing listens on the lowest ports of a test machine, and root's are refused at once anyway.
            let engines: Vec<_> = (0..*endpoints).map(|i| (format!("engine-{i}"), 1 + i)).collect();
            stack::write_endpoints(&list, &engines);
            if pools.len() > 1 {
                arguments.push(format!("--pool-name={name}"));
                arguments.push(format!("--endpoints-file={name}={}", list.display()));
            } else {
                arguments.push(format!("--endpoints-file={}", list.display()));
            }
        }
        let process = start(&arguments, folder.path());
        await_that("the picker answers", || async {
            client::get(port, "/debug/live").await.is_ok_and(|answer| {
                let found = answer.json()["pools"].clone();
                let sizes = found.as_array().unwrap().iter().map(|pool| pool["size"].as_u64().unwrap());
                sizes.eq(pools.iter().copied().map(u64::from))
            })
        })
        .await;
        Self { process, port, browser: Browser::start().await, arguments, folder }
    }

    fn url(&self) -> String {
        format!("http://localhost:{}/", self.port)
    }
}

fn start(arguments: &[String], folder: &Path) -> Process {
    let mut command = Command::new(program());
    command.args(arguments);
    Process::start("picker", command, folder)
}

/// Leaves a picture where somebody asked for pictures.
async fn picture(tab: &Tab, name: &str) {
    if let Some(folder) = std::env::var_os("POINTSMAN_PICTURES") {
        tab.picture(&Path::new(&folder).join(format!("{name}.png"))).await;
    }
}

/// Waits until there are `n` rows of endpoints.
async fn rows(tab: &Tab, n: usize) {
    tab.until(&format!("document.querySelectorAll({ROWS:?}).length === {n}")).await;
}

/// The texts of one column of the endpoints, from above.
async fn column(tab: &Tab, cell: usize) -> Vec<String> {
    let texts = format!("[...document.querySelectorAll({ROWS:?})].map(row => row.cells[{cell}].textContent)");
    serde_json::from_value(tab.eval(&texts).await).unwrap()
}

/// Nothing stands on the console, nothing was asked of anybody else, and nothing has to be scrolled sideways but tables.
async fn assert_sound(tab: &Tab, port: u16) {
    assert_eq!(tab.complaints(), Vec::<Value>::new());
    let own = format!("http://localhost:{port}/");
    let others: Vec<_> = tab.requested().into_iter().filter(|url| !url.starts_with(&own)).collect();
    assert!(others.iter().all(|url| url == "data:,"), "{others:?}");
    let widths = tab.eval("[document.documentElement.scrollWidth, innerWidth]").await;
    assert!(widths[0].as_f64() <= widths[1].as_f64(), "wider than the window: {widths}");
}

async fn shows_every_endpoint(endpoints: u16) {
    let _machine = shared().await;
    let scene = Scene::of(&[endpoints]).await;
    let answer = client::get(scene.port, "/debug/live").await.unwrap();
    println!("/debug/live: {} bytes at {endpoints} endpoints", answer.body.len());
    assert!(answer.body.len() <= 200_000, "{}", answer.body.len());
    let tab = scene.browser.open(&format!("http://localhost:{}/", scene.port), DESK).await;
    let mut seen = Vec::new();
    for (look, name) in [
        (DESK, "desk"),
        (Look { dark: true, ..DESK }, "desk-dark"),
        (Look { dark: false, ..PHONE }, "phone-light"),
        (PHONE, "phone"),
    ] {
        tab.look(look).await;
        rows(&tab, usize::from(endpoints)).await;
        tab.until("document.getElementById('link').textContent === 'ready'").await;
        tab.until("document.getElementById('totals').textContent.includes('Picks a second0.0')").await;
        assert_eq!(tab.eval("innerWidth").await, look.window.0, "the page takes the window's width");
        assert_sound(&tab, scene.port).await;
        let colours = "(style => [style.color, style.backgroundColor])(getComputedStyle(document.body))";
        seen.push((look.dark, tab.eval(colours).await));
        picture(&tab, &format!("{endpoints}-{name}")).await;
    }
    for (dark, colours) in &seen {
        let same = seen.iter().filter(|(_, other)| colours[0] == other[0] && colours[1] == other[1]);
        assert!(same.clone().count() == 2 && same.clone().all(|(other, _)| dark == other), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_endpoint_is_shown() {
    needs_chromium!("live_page::one_endpoint_is_shown");
    shows_every_endpoint(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_endpoints_are_shown() {
    needs_chromium!("live_page::five_hundred_endpoints_are_shown");
    shows_every_endpoint(500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_are_sorted_and_picked_out_by_hand() {
    needs_chromium!("live_page::endpoints_are_sorted_and_picked_out_by_hand");
    let _machine = shared().await;
    let scene = Scene::of(&[120]).await;
    let between = Counted::before(scene.port).await;
    between.change("/debug/live", |live| {
        for (i, row) in live["pools"][0]["endpoints"].as_array_mut().unwrap().iter_mut().enumerate() {
            // Who has no number of its own, a number unlike the others' order, and an endpoint that is well.
            row[2] = if i == 7 { Value::Null } else { (i * 37 % 120).into() };
            if row[0] == "default/engine-11" {
                (row[8], row[9]) = (json!("fresh"), Value::Null);
            }
        }
    });
    let tab = scene.browser.open(&format!("http://localhost:{}/", between.port), DESK).await;
    rows(&tab, 120).await;
    let head = |n: usize| format!("#pools thead th:nth-child({n}) button");

    let names = column(&tab, 0).await;
    assert_eq!((names[2].as_str(), names[119].as_str()), ("default/engine-2", "default/engine-119"));

    tab.click(&head(4)).await;
    let waiting = column(&tab, 3).await;
    assert_eq!((waiting[0].as_str(), waiting[1].as_str(), waiting[119].as_str()), ("119", "118", "–"));
    tab.click(&head(4)).await;
    let waiting = column(&tab, 3).await;
    assert_eq!((waiting[0].as_str(), waiting[1].as_str(), waiting[119].as_str()), ("–", "0", "119"));
    let sorted = "[...document.querySelectorAll('#pools thead th')].map(th => th.getAttribute('aria-sort'))";
    let none = Value::Null;
    assert_eq!(tab.eval(sorted).await, json!([none, none, none, "ascending", none, none, none, none, none]));

    // The worst first, then the best.
    tab.click(&head(2)).await;
    let health = column(&tab, 1).await;
    assert_eq!((health[0].as_str(), health[119].as_str()), ("suspect: scrapes_refused", "ok"));
    tab.click(&head(2)).await;
    assert_eq!(column(&tab, 1).await[0], "ok");
    tab.click(&head(1)).await;
    assert_eq!(column(&tab, 0).await[1], "default/engine-1");

    tab.click("#only").await;
    tab.write("ENGINE-11").await;
    rows(&tab, 11).await;
    assert_eq!(column(&tab, 0).await[1], "default/engine-110");
    assert!(tab.text("document.querySelector('#pools h3').textContent").await.contains("11 shown"));
    // The next numbers leave the choice as it is.
    let before = between.asked("/debug/live").len();
    await_that("two more answers", || async { between.asked("/debug/live").len() > before + 2 }).await;
    rows(&tab, 11).await;
    tab.eval("document.getElementById('only').select()").await;
    tab.write("ok").await;
    rows(&tab, 1).await;
    assert_eq!(column(&tab, 0).await, ["default/engine-11"]);
    tab.eval("document.getElementById('only').select()").await;
    tab.write("nobody").await;
    rows(&tab, 0).await;
    let none = "document.querySelector('#pools p.warn').textContent";
    assert_eq!(tab.text(none).await, "None of the 120 matches “nobody”.");
    // The number of suspects leads to them.
    tab.click("#pools button.link").await;
    tab.until("document.getElementById('only').value === 'suspect'").await;
    assert!(column(&tab, 1).await.iter().all(|health| health == "suspect: scrapes_refused"));
    assert_sound(&tab, between.port).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hidden_page_asks_nothing_and_a_shown_one_once_a_second() {
    needs_chromium!("live_page::a_hidden_page_asks_nothing_and_a_shown_one_once_a_second");
    let _machine = shared().await;
    let scene = Scene::of(&[2]).await;
    let (first, second) = (Counted::before(scene.port).await, Counted::before(scene.port).await);
    let asked = |by: &Counted| by.asked("/debug/live").len();
    let url = |by: &Counted| format!("http://localhost:{}/", by.port);
    let hidden = scene.browser.open(&url(&first), DESK).await;
    await_that("the page asks again and again", || async { asked(&first) > 2 }).await;

    // A second tab stands before the first one.
    let shown = scene.browser.open(&url(&second), DESK).await;
    hidden.until("document.visibilityState === 'hidden'").await;
    await_that("the shown page is at work", || async { asked(&second) > 1 }).await;
    let (before, then) = (asked(&first), asked(&second));
    await_that("the shown page asked four times more", || async { asked(&second) >= then + 4 }).await;
    assert_eq!(asked(&first), before, "the hidden one asked");

    hidden.to_front().await;
    await_that("shown again, it asks again", || async { asked(&first) > before + 1 }).await;
    let stopped = asked(&second);
    await_that("and goes on", || async { asked(&first) > before + 4 }).await;
    assert!(asked(&second) <= stopped + 1, "the other one is hidden now");

    // Turned to and away from quickly, it still asks once a second.
    for _ in 0..5 {
        shown.to_front().await;
        hidden.to_front().await;
    }
    await_that("it asks as before", || async { asked(&first) > before + 9 }).await;
    for by in [&first, &second] {
        let times: Vec<_> = by.asked("/debug/live").iter().map(|asked| asked.at).collect();
        let took = *times.last().unwrap() - times[0];
        // One second lies between two, give or take the way to the server.
        assert!(took + Duration::from_secs(1) >= Duration::from_secs(times.len() as u64 - 1), "{times:?}");
        let mut paths = by.paths();
        paths.retain(|path| path != "/debug/live");
        assert_eq!(paths, ["/"], "nothing else is asked for");
    }
}

/// The open explanation says what `why` says: the winner, and each candidate with its total and each scorer's number.
async fn explained(tab: &Tab, why: &Value) {
    let chosen = why["chosen"].as_str().unwrap();
    let opened = tab.text("document.getElementById('why').outerHTML").await;
    assert!(
        opened.contains(&format!("Chosen: {chosen}")) && opened.contains("Answered 200, ended natural"),
        "{opened}"
    );
    assert_eq!(
        tab.text("document.querySelector('#why tr.chosen th').textContent").await,
        format!("★\u{a0}{chosen}")
    );
    let profile = &why["profiles"][0];
    let cells = "[...document.querySelectorAll('#why tbody tr')].map(row => [...row.cells].map(cell => cell.textContent))";
    let shown: Vec<Vec<String>> = serde_json::from_value(tab.eval(cells).await).unwrap();
    let ratings = profile["ratings"].as_array().unwrap();
    assert_eq!(shown.len(), ratings.len());
    for (row, rated) in shown.iter().zip(ratings) {
        assert!(row[0].ends_with(rated["endpoint"].as_str().unwrap()), "{row:?}");
        let scores = rated["scores"].as_array().unwrap();
        let numbers: Vec<_> = [&rated["total"]]
            .into_iter()
            .chain(scores)
            .map(|n| format!("{:.3}", n.as_f64().unwrap()))
            .collect();
        assert_eq!(row[1..=numbers.len()], numbers, "{row:?}");
    }
    for scorer in profile["scorers"].as_array().unwrap() {
        let head = format!("{} ×{}", scorer["scorer"].as_str().unwrap(), scorer["weight"].as_f64().unwrap());
        assert!(opened.contains(&head), "{head}: {opened}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_opens_into_its_explanation() {
    needs_chromium!("live_page::a_decision_opens_into_its_explanation");
    needs_envoy!("live_page::a_decision_opens_into_its_explanation");
    let _machine = shared().await;
    let stack = Plan::new("full-duplex", &envoy::newest()).start().await;
    let body = r#"{"model":"test-model","max_tokens":3,"messages":[{"role":"user","content":"planted"}]}"#;
    let path = "/v1/chat/completions";
    assert_eq!(stack.client.post(path, body).await.unwrap().status, 200);
    assert_eq!(stack.client.post(path, "{").await.unwrap().status, 400);
    // Whatever an engine says of such a model.
    let hostile = body.replace("test-model", "<img src=x onerror=document.title=1>");
    stack.client.post(path, hostile).await.unwrap();
    stack.await_idle().await;

    let port = stack.picker.metrics_port;
    let list = client::get(port, "/debug/decisions?limit=5").await.unwrap().json();
    let routed = |d: &Value| d["chosen"].is_string() && d["status"] == 200;
    let place = list["decisions"].as_array().unwrap().iter().position(routed).expect("a routed decision");
    let decision = &list["decisions"][place];
    let (id, chosen) = (decision["request_id"].as_str().unwrap(), decision["chosen"].as_str().unwrap());
    let browser = Browser::start().await;
    let tab = browser.open(&format!("http://localhost:{port}/debug"), DESK).await;
    let link = format!("#decisions tbody tr:nth-child({}) button", place + 1);
    tab.until(&format!("document.querySelector({link:?}) !== null")).await;
    assert_eq!(tab.text(&format!("document.querySelector({link:?}).textContent")).await, id);
    let page = tab.text("document.documentElement.outerHTML").await;
    assert!(page.contains("Refusals by cause:") && !page.contains("Refusals by cause: none"), "{page}");
    assert!(page.contains("&lt;img src=x"), "the model is listed as text: {page}");
    assert!(!page.contains("<img") && page.contains("<title>Pointsman</title>"), "{page}");

    tab.click(&link).await;
    tab.until(
        "document.getElementById('why').matches(':modal') && document.querySelector('#why table') !== null",
    )
    .await;
    let why = client::get(port, &format!("/debug/decisions/{id}")).await.unwrap().json();
    assert_eq!(
        (&why["chosen"], why["profiles"][0]["ratings"].as_array().unwrap().len()),
        (&chosen.into(), 2)
    );
    explained(&tab, &why).await;
    for (look, name) in [(DESK, "decision-desk"), (PHONE, "decision-phone")] {
        tab.look(look).await;
        assert_sound(&tab, port).await;
        picture(&tab, name).await;
    }

    tab.look(DESK).await;
    tab.press("Escape", 27).await;
    tab.until("!document.getElementById('why').open && location.hash === ''").await;
    tab.click(&link).await;
    tab.until("document.querySelector('#why table') !== null").await;
    tab.click("#close").await;
    tab.until("!document.getElementById('why').open").await;
    assert!(!tab.text("document.documentElement.outerHTML").await.contains("planted"));

    // What stands in the address opens it as well.
    let escaped: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let second = browser.open(&format!("http://localhost:{port}/#decision={escaped}"), DESK).await;
    second.until("document.querySelector('#why tr.chosen') !== null").await;
    assert_sound(&second, port).await;
}

/// A busy picker: every answer has decisions that nobody has seen before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_moves_can_be_clicked_and_held() {
    needs_chromium!("live_page::a_list_that_moves_can_be_clicked_and_held");
    let _machine = shared().await;
    let scene = Scene::of(&[1]).await;
    let between = Counted::before(scene.port).await;
    let answers = AtomicU64::new(0);
    between.change("/debug/live", move |live| {
        let n = answers.fetch_add(1, Ordering::Relaxed);
        let decision = |i| {
            json!({"request_id": format!("request-{n}-{i}"), "age_ms": 5, "target_model": "m", "took_us": 40,
                   "chosen": "default/engine-0", "prompt_tokens": 7})
        };
        live["decisions"] = (0..20).map(decision).collect();
    });
    let more = |n: usize| {
        let before = between.asked("/debug/live").len();
        let between = &between;
        await_that("more answers", move || async move { between.asked("/debug/live").len() >= before + n })
    };
    let tab = scene.browser.open(&format!("http://localhost:{}/", between.port), DESK).await;
    let first = "document.querySelector('#decisions tbody button')?.textContent";
    tab.until(&format!("{first} !== undefined")).await;
    let seen = tab.text(first).await;
    tab.until(&format!("{first} !== {seen:?}")).await;

    // A slow hand: the button goes down, answers come, the button goes up.
    let place = tab.point_at("#decisions tbody tr:nth-child(3) button").await;
    tab.mouse("mousePressed", &place).await;
    let pressed = tab.text("document.querySelector('#decisions tbody button:hover').textContent").await;
    more(3).await;
    tab.until("document.getElementById('held').textContent === 'held while pointed at'").await;
    tab.mouse("mouseReleased", &place).await;
    tab.until(&format!("document.getElementById('why-title').textContent === {pressed:?}")).await;
    // The proxied picker has made no such decision; it says so.
    tab.until("document.getElementById('why-body').textContent.startsWith('404: ')").await;
    tab.click("#close").await;
    tab.until(&format!("document.getElementById('held').textContent === '' && {first} !== {seen:?}")).await;

    tab.click("#hold").await;
    tab.until("document.getElementById('held').textContent === 'held'").await;
    let seen = tab.text(first).await;
    more(3).await;
    assert_eq!(tab.text(first).await, seen, "held");
    tab.click("#hold").await;
    tab.until(&format!("{first} !== {seen:?} && document.getElementById('held').textContent === ''")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picker_that_went_away_is_said_to_be_away() {
    needs_chromium!("live_page::a_picker_that_went_away_is_said_to_be_away");
    let _machine = shared().await;
    let mut scene = Scene::of(&[3]).await;
    let tab = scene.browser.open(&scene.url(), DESK).await;
    rows(&tab, 3).await;
    scene.process.kill();
    tab.until("document.getElementById('link').className === 'lost'").await;
    let said = tab.text("document.getElementById('link').textContent").await;
    assert!(said.starts_with("No answer from the picker since "), "{said}");
    assert!(said.contains(", the numbers below are from then: "), "{said}");
    rows(&tab, 3).await;
    tab.until("document.getElementById('main').className === 'old'").await;
    // Since when, and the time that has gone by since then.
    let ago = "document.getElementById('since').textContent";
    let first = tab.text(ago).await;
    tab.until(&format!("{ago} !== {first:?}")).await;
    assert_eq!(tab.text("document.getElementById('link').textContent").await, said);
    for (look, name) in [(DESK, "gone-desk"), (PHONE, "gone-phone")] {
        tab.look(look).await;
        picture(&tab, name).await;
    }
    scene.process = start(&scene.arguments, scene.folder.path());
    tab.until("document.getElementById('main').className === '' && document.getElementById('since').hidden")
        .await;
    rows(&tab, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_pool_says_what_it_lacks() {
    needs_chromium!("live_page::an_empty_pool_says_what_it_lacks");
    let _machine = shared().await;
    let scene = Scene::of(&[1]).await;
    let between = Counted::before(scene.port).await;
    // As when the last pod is gone.
    between.change("/debug/live", |live| live["pools"][0]["endpoints"] = json!([]));
    let tab = scene.browser.open(&format!("http://localhost:{}/", between.port), PHONE).await;
    tab.until("document.querySelector('#pools p.warn:not([hidden])')?.textContent.startsWith('No endpoint is known')").await;
    assert_sound(&tab, between.port).await;
    picture(&tab, "empty-phone").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_pools_are_shown_together_or_one_by_one() {
    needs_chromium!("live_page::several_pools_are_shown_together_or_one_by_one");
    let _machine = shared().await;
    let scene = Scene::of(&[3, 2]).await;
    let between = Counted::before(scene.port).await;
    let tab = scene.browser.open(&format!("http://localhost:{}/", between.port), PHONE).await;
    rows(&tab, 5).await;
    let titles = "[...document.querySelectorAll('#pools h3')].map(title => title.textContent)";
    assert_eq!(tab.eval(titles).await, json!(["a: 3 endpoints", "b: 2 endpoints"]));
    let pressed = "document.querySelector('#switch [aria-pressed=true]').textContent";
    assert_eq!(tab.text(pressed).await, "All pools");
    picture(&tab, "pools-phone").await;

    tab.click("#switch button[value=b]").await;
    rows(&tab, 2).await;
    assert_eq!(tab.eval(titles).await, json!(["b: 2 endpoints"]));
    assert!(tab.text(pressed).await.starts_with("b (2"));
    await_that("only that pool is asked for", || async { between.asked("/debug/live?pool=b").len() > 2 })
        .await;
    rows(&tab, 2).await;
    let all = between.asked("/debug/live").len();
    assert_eq!(tab.text("location.search").await, "?pool=b");
    assert_sound(&tab, between.port).await;

    // The address brings the same view; a pool that is not there brings all of them.
    let again = scene.browser.open(&format!("http://localhost:{}/?pool=b", between.port), DESK).await;
    rows(&again, 2).await;
    assert_eq!(between.asked("/debug/live").len(), all);
    let unknown = scene.browser.open(&format!("http://localhost:{}/?pool=c", between.port), DESK).await;
    rows(&unknown, 5).await;
    unknown.click("#switch button[value=a]").await;
    rows(&unknown, 3).await;
    unknown.click("#switch button[value='']").await;
    rows(&unknown, 5).await;
    await_that("all are asked for", || async { between.asked("/debug/live").len() > all }).await;
    assert_sound(&unknown, between.port).await;
    picture(&unknown, "pools-desk").await;
}
