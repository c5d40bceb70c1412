//! `streamgate req` and `serve-rpc`: what they print, their exit codes, and what becomes of processes.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;
use streamgate_e2e::{
    cluster,
    events::text,
    gateway::TestNode,
    process::{binary, run},
    raw::Via,
    responder::OPEN,
    within,
};
use tokio::sync::watch;

use crate::cli::succeeded;

/// `serve-rpc`, serving; killed when dropped.
struct Serving {
    child: Child,
    /// What it prints of calls.
    calls: watch::Receiver<Vec<String>>,
    session: String,
}

impl Serving {
    /// Serves with these options and this script.
    async fn start(server: &str, options: &[&str], script: &str) -> Self {
        let mut command = Command::new(binary());
        for name in ["STREAMGATE_URL", "STREAMGATE_TOKEN", "STREAMGATE_CLIENT_ID"] {
            command.env_remove(name);
        }
        command.args(["serve-rpc", "--server", server]).args(options).args(["--command", "sh", "-c", script]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (calls, said) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        let mut serving = Self { child, calls, session: String::new() };
        serving.session = find(&said, "serving ").await.rsplit(' ').next().unwrap().to_owned();
        serving
    }

    async fn printed(&self, what: &str) -> String {
        find(&self.calls, what).await
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    async fn ended(&mut self) -> Option<i32> {
        within("the end of serve-rpc", async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status.code();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(pipe: impl std::io::Read + Send + 'static) -> watch::Receiver<Vec<String>> {
    let (sender, lines) = watch::channel(Vec::new());
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            sender.send_modify(|lines| lines.push(line));
        }
    });
    lines
}

/// Waits for a line that holds `what`.
async fn find(lines: &watch::Receiver<Vec<String>>, what: &str) -> String {
    let mut lines = lines.clone();
    let found = |lines: &Vec<String>| lines.iter().find(|line| line.contains(what)).cloned();
    let all = within(what, lines.wait_for(|lines| found(lines).is_some())).await.unwrap();
    found(&all).unwrap()
}

/// `req` with these arguments.
async fn req(server: &str, args: &[&str]) -> Output {
    let args: Vec<String> =
        ["req", "--server", server].iter().chain(args).map(|arg| (*arg).to_owned()).collect();
    tokio::task::spawn_blocking(move || run(&args.iter().map(String::as_str).collect::<Vec<_>>()))
        .await
        .unwrap()
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

async fn node() -> (TestNode, String) {
    let node = TestNode::start(OPEN).await;
    let server = cluster::url(node.addrs(), Via::WsJson);
    (node, server)
}

/// A directory of its own, gone with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("streamgate-rpc-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_answers_calls_with_what_it_prints() {
    let (_node, server) = node().await;
    let script = r#"printf '%s %s ' "$RPC_CHANNEL" "$RPC_METHOD"; test -n "$RPC_REQUEST_ID" && cat"#;
    let serving = Serving::start(&server, &["text.*"], script).await;
    // Nothing that a shell could take for more than text.
    let odd = "it's; $(touch /nowhere) \"x\"";
    let printed = req(&server, &["shop.7", "text.echo", odd]).await;
    assert_eq!(
        (printed.status.code(), out(&printed)),
        (Some(0), format!("shop.7 text.echo {odd}\n").as_str())
    );
    let line = serving.printed(" text.echo ").await;
    let words: Vec<_> = line.split(' ').collect();
    assert!(matches!(words.as_slice(), ["shop.7", "text.echo", _, "ok", _, "ms"]), "{line}");

    // By its session, and without data.
    let printed = req(&server, &["--session", &serving.session, "text.none"]).await;
    assert_eq!(out(&printed), format!("$session.{} text.none \n", serving.session));
    let printed = req(&server, &["a", "text.x", "{}", "-o", "json"]).await;
    let event: Value = serde_json::from_str(out(&printed)).unwrap();
    assert_eq!((&event["type"], &event["data"]), (&"streamgate.reply".into(), &"a text.x {}".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standard_input_and_bytes_pass_through_unchanged() {
    let (_node, server) = node().await;
    let serving = Serving::start(&server, &["m.cat", "-o", "json"], "cat").await;
    let data = b"line\n\x00\xff\xfe";
    let mut child = Command::new(binary())
        .args(["req", "a", "m.cat", "-", "--server", &server])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(data).unwrap();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout, data);
    let line: Value = serde_json::from_str(&serving.printed("m.cat").await).unwrap();
    assert_eq!((&line["channel"], &line["outcome"]), (&"a".into(), &"ok".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exit_code_says_what_happened() {
    let (_node, server) = node().await;
    let script = "case $RPC_METHOD in
        *.three) echo first >&2; echo 'no tea' >&2; exit 3;;
        *.signal) kill -9 $$;;
        *.big) head -c 70000 /dev/zero;;
        *) sleep 600;;
    esac";
    let _serving = Serving::start(&server, &["m.*"], script).await;
    for (method, expected) in [
        ("m.three", "EXIT_3: no tea"),
        ("m.signal", "SIGNAL_9: "),
        ("m.big", "TOO_LARGE: "),
        ("other", "NO_PROXY: "),
    ] {
        let output = req(&server, &["a", method]).await;
        assert_eq!((output.status.code(), out(&output)), (Some(1), ""), "{method}");
        assert!(err(&output).starts_with(&format!("error: {expected}")), "{}", err(&output));
    }
    let output = req(&server, &["--session", "made-up", "m.three"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).starts_with("error: NOT_FOUND: "), "{}", err(&output));
    assert_eq!(req(&server, &["a", "m.slow", "--timeout", "300ms"]).await.status.code(), Some(4));
    assert_eq!(req(&server, &["a"]).await.status.code(), Some(2));
    assert_eq!(req(&server, &["a", "m", "--timeout", "0s"]).await.status.code(), Some(2));
    // Nothing can listen on port 1 here but root's own daemons.
    assert_eq!(req("127.0.0.1:1", &["a", "m"]).await.status.code(), Some(3));
}

fn is_running(pid: &str) -> bool {
    // A zombie has ended, and only waits for whoever started it.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

async fn written(file: &Path) -> String {
    within("the file", async {
        loop {
            match fs::read_to_string(file) {
                Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await
}

async fn gone(pid: &str) {
    within("the end of the process", async {
        while is_running(pid) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_deadline_a_program_is_killed_with_everything_that_it_started() {
    let (node, server) = node().await;
    let scratch = Scratch::new();
    let (own, childs) = (scratch.file("own"), scratch.file("child"));
    let script = format!("sleep 600 & echo $! >{}; echo $$ >{}; wait", childs.display(), own.display());
    let serving = Serving::start(&server, &["m.slow"], &script).await;
    let output = req(&server, &["a", "m.slow", "--timeout", "1s"]).await;
    assert_eq!(output.status.code(), Some(4), "{}", err(&output));
    for file in [&own, &childs] {
        gone(&written(file).await).await;
    }
    serving.printed(" GIVEN_UP ").await;

    // So it is when the connection by which the call came is gone.
    fs::remove_file(&childs).unwrap();
    let caller = cluster::connect(&[node.addrs()], Via::WsJson).await;
    let call = tokio::spawn(async move {
        caller.call("a", "m.slow", text("e", ""), streamgate_client::CallOptions::default()).await
    });
    let pid = written(&childs).await;
    assert!(is_running(&pid));
    drop(node);
    gone(&pid).await;
    assert!(call.await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_calls_run_at_a_time_and_sigterm_waits_for_them() {
    let (_node, server) = node().await;
    let scratch = Scratch::new();
    let (started, gate) = (scratch.file("started"), scratch.file("gate"));
    // Each one waits until it may go on.
    let script = format!(
        "echo $$ >>{}; while ! test -e {}; do sleep 0.05; done; cat",
        started.display(),
        gate.display()
    );
    let mut serving = Serving::start(&server, &["m.wait", "--concurrency", "2"], &script).await;
    let calls: Vec<_> = (0..3)
        .map(|n| {
            let server = server.clone();
            tokio::spawn(
                async move { req(&server, &["a", "m.wait", &n.to_string(), "--timeout", "30s"]).await },
            )
        })
        .collect();
    let two = || fs::read_to_string(&started).is_ok_and(|text| text.lines().count() == 2);
    within("two processes", async {
        while !two() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // The third call may be on its way yet: it is answered, or told that nobody serves it any more.
    serving.signal("-TERM");
    within("the offer to be taken back", async { while succeeded_or(&server).await != Some(1) {} }).await;
    assert!(two(), "two at a time");
    fs::write(&gate, "").unwrap();
    let mut answered = 0;
    for (n, call) in calls.into_iter().enumerate() {
        let output = call.await.unwrap();
        match output.status.code() {
            Some(0) => {
                assert_eq!(out(&output), format!("{n}\n"));
                answered += 1;
            }
            code => {
                assert!(code == Some(1) && err(&output).contains("NO_PROXY"), "{code:?} {}", err(&output))
            }
        }
    }
    assert!(answered >= 2);
    assert_eq!(serving.ended().await, Some(0));
    assert_eq!(serving.calls.borrow().len(), answered);
}

/// Calls with little patience; the exit code.
async fn succeeded_or(server: &str) -> Option<i32> {
    req(server, &["a", "m.wait", "--timeout", "200ms"]).await.status.code()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn help_tells_of_exit_codes_and_of_the_environment() {
    assert!(succeeded(&["req", "--help"]).contains("Exit codes: 0 answered"));
    assert!(succeeded(&["serve-rpc", "--help"]).contains("RPC_REQUEST_ID"));
}
